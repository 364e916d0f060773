package tcpdiag

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"testing"

	"github.com/vishvananda/netlink"

	"brownout/internal/needs"
	"brownout/internal/sys/netns"
)

// pair makes a connection in a namespace of its own and sends some bytes over it.
func pair(t testing.TB, conns int) (*os.File, netip.AddrPort) {
	t.Helper()
	needs.Host(t, needs.Root)
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	if err := netns.Do(ns, func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		return netlink.LinkSetUp(lo)
	}); err != nil {
		t.Fatal(err)
	}
	l, err := netns.Listen(t.Context(), ns, "tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	for range conns {
		a, err := netns.Dial(t.Context(), ns, "tcp4", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		b, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { a.Close(); b.Close() })
		if _, err := io.WriteString(a, "0123456789"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(b, make([]byte, 7)); err != nil {
			t.Fatal(err)
		}
	}
	return ns, netip.MustParseAddrPort(l.Addr().(*net.TCPAddr).String())
}

func TestConnsOfANamespace(t *testing.T) {
	ns, server := pair(t, 1)
	s, err := Open(ns)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	for range 3 { // the same socket can be asked again
		conns, err := s.Conns()
		if err != nil {
			t.Fatal(err)
		}
		if len(conns) != 2 {
			t.Fatalf("%d connections, want both ends of one: %+v", len(conns), conns)
		}
		for _, c := range conns {
			if c.Cookie == 0 || c.RTT <= 0 || c.Retrans != 0 {
				t.Errorf("%+v", c)
			}
			if c.Local == server && (c.BytesReceived != 10 || c.RecvQueue != 3) {
				t.Errorf("server's end: %+v, want 10 bytes received, 3 unread", c)
			}
			if c.Remote == server && c.BytesSent < 10 {
				t.Errorf("client's end: %+v, want 10 bytes sent", c)
			}
		}
		if conns[0].Local != conns[1].Remote || conns[0].Cookie == conns[1].Cookie {
			t.Errorf("not two ends of one connection: %+v", conns)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Conns(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func FuzzParseConn(f *testing.F) {
	f.Add(make([]byte, msgSize))
	good := make([]byte, msgSize+4+infoSize)
	good[0] = familyV4
	good[msgSize], good[msgSize+2] = 4+infoSize, attrInfo
	f.Add(good)
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, ok, err := parseConn(b); ok && (err != nil || !c.Local.IsValid() || c.RTT < 0) {
			t.Fatalf("%+v, %v", c, err)
		}
	})
}

func BenchmarkConns(b *testing.B) {
	ns, _ := pair(b, 35)
	s, err := Open(ns)
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	for b.Loop() {
		if _, err := s.Conns(); err != nil {
			b.Fatal(err)
		}
	}
}
