package faults

import (
	"fmt"
	"slices"
	"time"

	"brownout/internal/sys/tcpdiag"
)

// A tcpWatch reads what the kernel's own TCP says of the real connections on
// links: evidence beside the probes, which no fault is judged by, because a
// target may use a link or not. A nil one sees nothing.
type tcpWatch struct {
	links []tcpLink
	diag  map[string]*tcpdiag.Socket
	base  map[uint64]tcpdiag.Conn
	rtt   time.Duration // median of smoothed round-trip times at the baseline
}

type tcpLink struct {
	from  string
	peers [2]string // addresses of the other end
}

func watchTCP(at endpoints, links []Link) *tcpWatch {
	w := &tcpWatch{diag: map[string]*tcpdiag.Socket{}, base: map[uint64]tcpdiag.Conn{}}
	for _, l := range links {
		ip4, ip6 := addrOf(at, l.To)
		w.links = append(w.links, tcpLink{l.From, [2]string{ip4.String(), ip6.String()}})
		if w.diag[l.From] != nil {
			continue
		}
		if _, ns, err := at.endpoint(l.From); err == nil {
			if s, err := tcpdiag.Open(ns); err == nil {
				w.diag[l.From] = s
			}
		}
	}
	return w
}

func (w *tcpWatch) close() {
	if w == nil {
		return
	}
	for _, s := range w.diag {
		_ = s.Close()
	}
}

// byNode are the established connections on the links, by their senders.
func (w *tcpWatch) byNode() map[string][]tcpdiag.Conn {
	out := map[string][]tcpdiag.Conn{}
	for from, s := range w.diag {
		all, _ := s.Conns() // none is no evidence
		for _, c := range all {
			at := c.Remote.Addr().Unmap().String()
			if slices.ContainsFunc(w.links, func(l tcpLink) bool { return l.from == from && (at == l.peers[0] || at == l.peers[1]) }) {
				out[from] = append(out[from], c)
			}
		}
	}
	return out
}

// conns are all of them.
func (w *tcpWatch) conns() (out []tcpdiag.Conn) {
	for _, cs := range w.byNode() {
		out = append(out, cs...)
	}
	return out
}

func rtts(cs []tcpdiag.Conn) (ds []time.Duration) {
	for _, c := range cs {
		if c.RTT > 0 {
			ds = append(ds, c.RTT)
		}
	}
	return ds
}

func (w *tcpWatch) baseline(values map[string]any) {
	cs := w.conns()
	for _, c := range cs {
		w.base[c.Cookie] = c
	}
	w.rtt = quantile(rtts(cs), 0.5)
	if len(cs) > 0 {
		values["tcp_rtt_ns"], values["tcp_conns"] = int64(w.rtt), len(cs)
	}
}

// measured adds to a reading what the connections of the baseline felt since,
// and says it in words. Where there were none, those that are there now tell.
func (w *tcpWatch) measured(values map[string]any) string {
	all := w.conns()
	cs := slices.DeleteFunc(slices.Clone(all), func(c tcpdiag.Conn) bool { _, was := w.base[c.Cookie]; return !was })
	if len(w.base) == 0 {
		cs = all
	}
	if len(cs) == 0 {
		return ""
	}
	var again uint32
	for _, c := range cs {
		again += c.Retrans - w.base[c.Cookie].Retrans
	}
	rtt := quantile(rtts(cs), 0.5)
	values["tcp_rtt_ns"], values["tcp_conns"], values["tcp_retrans"] = int64(rtt), len(cs), int(again)
	return fmt.Sprintf("; %d real connections: round trip %s (%s before), %d segments sent again", len(cs), short(rtt), short(w.rtt), again)
}
