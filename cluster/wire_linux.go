package cluster

// WirePID is the host's pid of the wire, 0 while none was needed: who accounts
// for the testbed's own CPU time asks for it.
func (s *Switch) WirePID() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wire == nil {
		return 0
	}
	return s.wire.Pid()
}
