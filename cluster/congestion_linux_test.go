package cluster

import (
	"net"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/netns"
)

// TestTenantsUseOneCongestionControl looks at both ends of connections between
// tenants and of a tenant to itself.
func TestTenantsUseOneCongestionControl(t *testing.T) {
	r := newRig(t, 2)
	want := r.Ports()[0].Congestion
	for _, tt := range []struct {
		name     string
		from, to int
		ip       func(int) netip.Addr
	}{
		{"IPv4", 0, 1, IP4},
		{"IPv6", 0, 1, IP6},
		{"to itself", 0, 0, IP4},
		{"to itself, IPv6", 0, 0, IP6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var ln net.Listener
			err := netns.Do(r.ns[tt.to], func() (err error) {
				ln, err = net.Listen("tcp", netip.AddrPortFrom(tt.ip(tt.to), 0).String())
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer ln.Close()
			var ends [2]net.Conn
			err = netns.Do(r.ns[tt.from], func() (err error) {
				ends[0], err = net.Dial("tcp", ln.Addr().String())
				return err
			})
			if err != nil {
				t.Fatal(err)
			}
			defer ends[0].Close()
			if ends[1], err = ln.Accept(); err != nil {
				t.Fatal(err)
			}
			defer ends[1].Close()
			for i, c := range ends {
				raw, err := c.(*net.TCPConn).SyscallConn()
				if err != nil {
					t.Fatal(err)
				}
				var got string
				raw.Control(func(fd uintptr) { got, err = unix.GetsockoptString(int(fd), unix.IPPROTO_TCP, unix.TCP_CONGESTION) })
				if err != nil || got != want {
					t.Errorf("end %d uses %q (%v), want %s", i, got, err, want)
				}
			}
		})
	}
}
