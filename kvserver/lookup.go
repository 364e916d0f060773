package kvserver

import "slices"

// confirm waits until the reads of a run may be done on the local state, and
// notes why they cannot be. All shards are asked at once.
func (f *front) confirm(r *run) {
	c := r.call
	first := c.shards[0]
	if len(f.groups) == 1 || !slices.ContainsFunc(c.shards, func(s uint8) bool { return s != first }) {
		s := slot{c: c, gen: c.begin(1)}
		if now, refused := r.group.reads.confirm(s); refused != "" {
			c.res[0] = failure(refused)
		} else if !now {
			<-c.notify
		} else {
			c.res[0] = okResult
		}
		if c.res[0].code == resFail {
			r.refuse(int(first), c.res[0].s, len(f.groups))
		}
		return
	}
	var asked []uint8
	for _, shard := range c.shards {
		if !slices.Contains(asked, shard) {
			asked = append(asked, shard)
		}
	}
	gen := c.begin(len(asked))
	for i, shard := range asked {
		s := slot{c: c, gen: gen, i: i}
		if now, refused := f.groups[shard].reads.confirm(s); refused != "" {
			s.answer(failure(refused))
		} else if now {
			s.answer(okResult)
		}
	}
	<-c.notify
	for i, shard := range asked {
		if c.res[i].code == resFail {
			r.refuse(int(shard), c.res[i].s, len(f.groups))
		}
	}
}

// refuse notes why the reads of a shard cannot be done.
func (r *run) refuse(shard int, why string, shards int) {
	for len(r.refused) < shards {
		r.refused = append(r.refused, "")
	}
	r.refused[shard] = why
}

// look answers a run of reads from the states of their shards.
func (f *front) look(r *run) {
	c := r.call
	c.at.locking = f.notes.Now()
	waited, timed := int64(0), c.turns%sampled == 0
	for from := 0; from < len(c.ops); {
		shard, to := c.shards[from], from+1
		for to < len(c.ops) && c.shards[to] == shard {
			to++
		}
		ops, res := c.ops[from:to], c.res[from:to]
		if from = to; len(r.refused) > 0 && r.refused[shard] != "" {
			for i := range res {
				res[i] = failure(r.refused[shard])
			}
			continue
		}
		g := f.groups[shard]
		waited += g.fsm.read(ops, res, timed)
		if f.c.Bug == bugDirtyRead {
			g.writes.readDirty(ops, res)
		}
	}
	c.turns++
	c.at.locked, c.at.answered = c.at.locking+waited, f.notes.Now()
}
