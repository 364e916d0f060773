package faults

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"brownout/cluster"
	"brownout/internal/faultfs"
	"brownout/internal/sys/proc"
)

// A powerLoss kills a node and takes from its disk what is not durable; torn
// leaves all of it but the end of each file's last write.
type powerLoss struct {
	b    *bench
	torn bool
	own  bool // the file system is the node's own and is shut down
}

func newPowerLoss(torn bool) func(*bench) Provider {
	return func(b *bench) Provider { return &powerLoss{b: b, torn: torn} }
}

func newShutdown(b *bench) Provider { return &powerLoss{b: b, own: true} }

// Probe has the disks keep from now on what they would lose: what was not
// durable by then will not be lost.
func (f *powerLoss) Probe(ctx context.Context) error {
	if f.own {
		return f.probeOwn()
	}
	if err := faultfs.Probe(); err != nil || f.b == nil {
		return err
	}
	for _, n := range f.b.Cluster.Nodes() {
		if err := n.ArmDisk(ctx, f.torn); err != nil {
			return err
		}
	}
	return nil
}

func (f *powerLoss) probeOwn() error {
	if err := cluster.ProbeLoop(); err != nil || f.b == nil {
		return err
	}
	for _, n := range f.b.Cluster.Nodes() {
		if !n.OwnDisk() {
			return &Unsupported{
				What: "power.loss by ext4", Why: "the nodes' disks are no file systems of their own",
				Cure: "provider: ext4 in the scenario, which is known before the nodes start, without other faults of slowfs",
			}
		}
	}
	return nil
}

// lose is the power loss of one node's disk.
func (f *powerLoss) lose(ctx context.Context, n *cluster.Node, share float64) error {
	if f.own {
		return n.ShutdownDisk(ctx)
	}
	_, err := n.LoseDisk(ctx, share)
	return err
}

func (f *powerLoss) Inject(ctx context.Context, site Site, d Dose) (Injection, error) {
	share := -1.0
	if f.torn {
		share = d.Float("prefix") / 100
	}
	dead, err := f.b.downs.inject(ctx, site.Nodes, Dose{}, func(Dose) (syscall.Signal, error) { return syscall.SIGKILL, nil })
	if err != nil {
		return nil, err
	}
	died := time.Now()
	for _, name := range site.Nodes {
		n, err := f.b.node(name)
		if err == nil {
			err = f.lose(context.WithoutCancel(ctx), n, share) // nothing is half lost
		}
		if err != nil {
			heal, cancel := context.WithTimeout(context.WithoutCancel(ctx), healWithin)
			defer cancel()
			return nil, errors.Join(err, dead.Heal(heal))
		}
	}
	return f.b.comeBack(ctx, site.Nodes, dead, died, d.Duration("restart")), nil
}

// A powerMeter has witnesses on the nodes' disks, written until the power goes:
// a log of records, each synced, none of which may be missing; and blocks
// written again and again over synced ones, never synced themselves, of which
// nothing may be left. With a torn write, the last of the blocks must be there
// up to where it was cut, and the one before it from there on.
type powerMeter struct {
	b         *bench
	torn      bool
	share     float64
	witnesses []*witness
	before    []*proc.Pidfd // of the nodes' processes
	whose     []string
}

// A witness is on one node's disk.
type witness struct {
	n    *cluster.Node
	dir  string // below the node's data
	base []byte // what the block holds durably

	mu     sync.Mutex
	synced int64 // records whose fsync has returned
	begun  int64 // records written, the last perhaps not synced
	blocks int64 // blocks written, the last perhaps only begun
	failed error

	stop context.CancelFunc
	done chan struct{}
}

const (
	witnessRecord = 256
	witnessBlock  = 32 << 10
	witnessPace   = 20 * time.Millisecond
	sector        = 512
)

func meterPower(b *bench, site Site, d Dose) (Meter, error) {
	nodes, err := b.nodes(site.Nodes)
	if err != nil {
		return nil, err
	}
	m := &powerMeter{b: b, torn: d.Has("prefix"), share: d.Float("prefix") / 100}
	for _, n := range nodes {
		m.witnesses = append(m.witnesses, &witness{n: n, dir: fmt.Sprintf(".bo-probe-%d-%d", os.Getpid(), probes.Add(1))})
	}
	return m, nil
}

func (w *witness) at(name string) string { return filepath.Join(w.n.Data(), w.dir, name) }

func (w *witness) record(i int64) []byte {
	b := bytes.Repeat([]byte{byte(i%255 + 1)}, witnessRecord)
	binary.BigEndian.PutUint64(b, uint64(i))
	return b
}

// block is the i-th one: every sector of it says so.
func (w *witness) block(i int64) []byte {
	b := make([]byte, witnessBlock)
	for at := range b {
		b[at] = byte(i) ^ byte(at/sector)
	}
	for at := 0; at < len(b); at += sector {
		binary.BigEndian.PutUint64(b[at:], uint64(i))
	}
	return b
}

// start makes the witness durable and goes on writing to it.
func (w *witness) start() error {
	if err := os.Mkdir(w.at(""), 0o700); err != nil {
		return fmt.Errorf("make a witness on %s's disk: %w", w.n.Name(), err)
	}
	var files [2]*os.File
	for i, name := range []string{"log", "block"} {
		f, err := os.Create(w.at(name))
		if err != nil {
			return err
		}
		files[i] = f
	}
	log, block := files[0], files[1]
	w.base = w.block(0)
	_, err := block.WriteAt(w.base, 0)
	err = errors.Join(err, block.Sync(), log.Sync(), syncDirectory(w.at("")), syncDirectory(w.n.Data()))
	if err != nil {
		return errors.Join(fmt.Errorf("make a witness on %s's disk durable: %w", w.n.Name(), err), log.Close(), block.Close())
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.stop, w.done = cancel, make(chan struct{})
	go func() {
		defer close(w.done)
		defer log.Close()
		defer block.Close()
		for ctx.Err() == nil {
			if err := w.write(log, block); err != nil { // the power is gone, or the disk is not well
				w.mu.Lock()
				w.failed = err
				w.mu.Unlock()
				return
			}
			sleep(ctx, witnessPace)
		}
	}()
	return nil
}

func (w *witness) write(log, block *os.File) error {
	w.mu.Lock()
	i := w.begun
	w.begun++
	w.mu.Unlock()
	if _, err := log.WriteAt(w.record(i), i*witnessRecord); err != nil {
		return err
	}
	if err := log.Sync(); err != nil {
		return err
	}
	w.mu.Lock()
	w.blocks++
	k := w.blocks
	w.mu.Unlock()
	if _, err := block.WriteAt(w.block(k), 0); err != nil {
		return err
	}
	// Only now: an fsync that is on while ext4 is shut down may return well and
	// have done nothing (seen with Linux 6.18); but no write goes well after that.
	w.mu.Lock()
	w.synced++
	w.mu.Unlock()
	return nil
}

func syncDirectory(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// A remnant is what is left of a witness.
type remnant struct {
	lost   int64 // bytes that were synced
	kept   int64 // bytes that were not
	prefix int64 // bytes of the last block that are there
	cut    int64 // where it should have been cut
	torn   bool  // it is exactly the last block before, the one before it behind
	synced int64
}

func (w *witness) look(share float64) (r remnant, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	log, err := os.ReadFile(w.at("log"))
	if err != nil {
		return r, err
	}
	block, err := os.ReadFile(w.at("block"))
	if err != nil {
		return r, err
	}
	r.synced = w.synced
	for i := range w.synced {
		if have := log[min(i*witnessRecord, int64(len(log))):]; !bytes.HasPrefix(have, w.record(i)) {
			r.lost += witnessRecord
		}
	}
	// A record whose fsync was on may be there.
	r.kept += max(int64(len(log))-w.begun*witnessRecord, 0)
	if len(block) != witnessBlock {
		r.lost += max(int64(witnessBlock-len(block)), 0)
		return r, nil
	}
	for at := 0; at < witnessBlock; at += sector {
		if !bytes.Equal(block[at:at+sector], w.base[at:at+sector]) {
			r.kept += sector
		}
	}
	r.cut = int64(share*witnessBlock) / sector * sector
	// The last one may not have got so far as to be written at all.
	for _, k := range []int64{w.blocks, w.blocks - 1} {
		if k < 1 {
			break
		}
		last, before := w.block(k), w.block(k-1)
		n := 0
		for n < witnessBlock && bytes.Equal(block[n:n+sector], last[n:n+sector]) {
			n += sector
		}
		if bytes.Equal(block[n:], before[n:]) && n < witnessBlock {
			r.prefix, r.torn = int64(n), true
			if r.prefix == r.cut {
				break
			}
		}
	}
	return r, nil
}

func (m *powerMeter) Baseline(ctx context.Context) (Reading, error) {
	for _, w := range m.witnesses {
		if err := w.start(); err != nil {
			return Reading{}, err
		}
		pids, err := w.n.Pids()
		if err != nil {
			return Reading{}, err
		}
		for _, pid := range pids {
			fd, err := proc.Open(pid)
			if err != nil {
				return Reading{}, err
			}
			m.before, m.whose = append(m.before, fd), append(m.whose, w.n.Name())
		}
	}
	sleep(ctx, diskBase)
	n := int64(0)
	for _, w := range m.witnesses {
		w.mu.Lock()
		n += w.synced
		err := w.failed
		w.mu.Unlock()
		if err != nil {
			return Reading{}, fmt.Errorf("write to a witness on %s's disk: %w", w.n.Name(), err)
		}
	}
	return Reading{map[string]any{"synced_n": n}}, ctx.Err()
}

func (m *powerMeter) Measure(ctx context.Context, _ Dose) (Reading, Answer, error) {
	<-ctx.Done()
	var bad []string
	for i, fd := range m.before {
		if !fd.Ended() {
			bad = append(bad, fmt.Sprintf("%s: process %d lives", m.whose[i], fd.PID()))
		}
	}
	reading, worse, err := m.look()
	if err != nil {
		return reading, Answer{}, err
	}
	bad = append(bad, worse...)
	v := Dose(reading.Values)
	why := fmt.Sprintf("all %.0f synced bytes of the witnesses are there, and %.0f of the others", v.Float("synced_bytes"), v.Float("unsynced_kept_bytes"))
	if m.torn {
		why = fmt.Sprintf("all %.0f synced bytes of the witnesses are there, and of the last write %.4g %%", v.Float("synced_bytes"), v.Float("percent"))
	}
	if bad != nil {
		return reading, Answer{false, strings.Join(bad, "; ")}, nil
	}
	return reading, Answer{true, why}, nil
}

// look reads what is left of all witnesses and says what should not be so.
func (m *powerMeter) look() (Reading, []string, error) {
	var bad []string
	var all remnant
	for _, w := range m.witnesses {
		w.stop()
		<-w.done
		r, err := w.look(m.share)
		if err != nil {
			return Reading{}, nil, fmt.Errorf("read the witness on %s's disk: %w", w.n.Name(), err)
		}
		all.synced, all.lost, all.kept = all.synced+r.synced, all.lost+r.lost, all.kept+r.kept
		all.prefix, all.cut = r.prefix, r.cut
		name := w.n.Name()
		w.mu.Lock()
		failed := w.failed
		w.mu.Unlock()
		switch {
		case failed == nil:
			bad = append(bad, fmt.Sprintf("%s: its disk took writes all the time", name))
		case r.lost > 0:
			bad = append(bad, fmt.Sprintf("%s: %d bytes that were synced are lost", name, r.lost))
		case m.torn && !r.torn:
			bad = append(bad, fmt.Sprintf("%s: the last write is not cut", name))
		case m.torn && r.prefix != r.cut:
			bad = append(bad, fmt.Sprintf("%s: %d bytes of the last write are there, not %d", name, r.prefix, r.cut))
		case !m.torn && r.kept > 0 && !w.n.OwnDisk(): // a kernel writes back when it likes, slowfs does not
			bad = append(bad, fmt.Sprintf("%s: %d bytes that were not synced are there", name, r.kept))
		}
	}
	values := map[string]any{"synced_bytes": all.synced*witnessRecord + witnessBlock*int64(len(m.witnesses)), "synced_lost_bytes": all.lost}
	if m.torn {
		values["percent"] = 100 * float64(all.prefix) / witnessBlock
		values["asked_percent"] = 100 * math.Floor(m.share*witnessBlock/sector) * sector / witnessBlock
	} else {
		values["unsynced_kept_bytes"] = all.kept
	}
	return Reading{values}, bad, nil
}

// Healed: the nodes serve again, what they had synced is still there, and their
// disks take and keep writes.
func (m *powerMeter) Healed(ctx context.Context) (Reading, Answer, error) {
	reading, _, err := m.look()
	if err != nil {
		return reading, Answer{}, err
	}
	var bad []string
	if lost := Dose(reading.Values).Float("synced_lost_bytes"); lost > 0 {
		bad = append(bad, fmt.Sprintf("%.0f bytes that were synced are lost", lost))
	}
	ready := map[string]bool{}
	for _, st := range m.b.Cluster.Statuses(ctx) {
		ready[st.Node] = st.Ready
	}
	for _, w := range m.witnesses {
		if !ready[w.n.Name()] {
			bad = append(bad, w.n.Name()+" is not ready")
		}
		name := w.at("again")
		err := os.WriteFile(name, w.base, 0o600)
		if err == nil {
			err = syncDirectory(name)
		}
		if err := errors.Join(err, os.Remove(name)); err != nil {
			bad = append(bad, fmt.Sprintf("%s: write again: %v", w.n.Name(), err))
		}
	}
	if bad != nil {
		return reading, Answer{false, strings.Join(bad, "; ")}, nil
	}
	return reading, Answer{true, "the nodes are ready, all synced bytes of the witnesses are there, and their disks take writes"}, nil
}

func (m *powerMeter) Close() error {
	var errs []error
	for _, w := range m.witnesses {
		if w.stop == nil {
			continue
		}
		w.stop()
		select {
		case <-w.done:
			_ = os.RemoveAll(w.at("")) // the node's data goes with the run
		case <-time.After(closeWithin): // in an operation that hangs
		}
	}
	for _, fd := range m.before {
		errs = append(errs, fd.Close())
	}
	m.before = nil
	return errors.Join(errs...)
}
