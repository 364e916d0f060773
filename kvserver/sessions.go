package kvserver

import "container/list"

// Sessions let a client send a write again without fear of doing it twice
// (Ongaro, "Consensus: Bridging Theory and Practice", 6.3). A client registers
// an id once (SESSION id), then numbers its writes from 1 (ONCE id seq SET k v).
// The last result of every session is kept, on every replica and in snapshots.
//
//	seq is new               the write is done, its result kept
//	seq is the last one      the kept result is returned, nothing is done
//	seq is older             -OLDSEQ: done before, its result forgotten
//	session is not known     -NOSESSION: not done
//
// The number of sessions is bounded; the one unused for longest is forgotten
// first. Order of use is order in the log, so all replicas forget alike. A
// client that is told NOSESSION for a repeated write cannot know whether the
// first one was done; it must go on under an id never used before.
const maxSessions = 4096

type session struct {
	id   string
	seq  uint64
	last result
}

// sessions is ordered by last use, oldest first. The zero value is not ready.
type sessions struct {
	byID  map[string]*list.Element // of *session
	order *list.List
}

func newSessions() sessions {
	return sessions{byID: map[string]*list.Element{}, order: list.New()}
}

// open registers id and returns the number of its last write, 0 for a new one.
func (s *sessions) open(id string) uint64 {
	if e := s.byID[id]; e != nil {
		s.order.MoveToBack(e)
		return e.Value.(*session).seq
	}
	s.put(session{id: id})
	return 0
}

func (s *sessions) put(v session) {
	s.byID[v.id] = s.order.PushBack(&v)
	for len(s.byID) > maxSessions {
		oldest := s.order.Remove(s.order.Front()).(*session)
		delete(s.byID, oldest.id)
	}
}

// once calls do unless this write has been done before.
func (s *sessions) once(id []byte, seq uint64, do func() result) result {
	e := s.byID[string(id)]
	if e == nil {
		return failure("NOSESSION session is not known here, or was forgotten")
	}
	s.order.MoveToBack(e)
	v := e.Value.(*session)
	switch {
	case seq < v.seq:
		return failure("OLDSEQ a later write of this session has been done")
	case seq > v.seq:
		v.seq, v.last = seq, do()
	}
	return v.last
}

// copy returns the sessions by value, oldest first.
func (s *sessions) copy() []session {
	all := make([]session, 0, s.order.Len())
	for e := s.order.Front(); e != nil; e = e.Next() {
		all = append(all, *e.Value.(*session))
	}
	return all
}
