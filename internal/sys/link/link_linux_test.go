package link

import (
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"brownout/internal/needs"
	"brownout/internal/sys/netns"
)

func TestTwoTenantsOfABridgeTalkAtOnce(t *testing.T) {
	needs.Host(t, needs.Root)
	space := func() (*os.File, *Conn) {
		ns, err := netns.New()
		if err != nil {
			t.Fatal(err)
		}
		c, err := At(ns)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close(); ns.Close() })
		return ns, c
	}
	_, sw := space()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(sw.Bridge("br", 2, 1500))
	var ns [2]*os.File
	ips := [2]netip.Prefix{netip.MustParsePrefix("10.9.8.1/24"), netip.MustParsePrefix("fd09::1/64")}
	for i := range ns {
		var c *Conn
		ns[i], c = space()
		must(sw.Veth(Veth{Name: []string{"a", "b"}[i], Index: 10 + i, Bridge: 2, MTU: 1500, Peer: "eth0", PeerMAC: net.HardwareAddr{2, 0, 0, 0, 0, byte(i)}, PeerNS: ns[i]}))
		index, err := c.Index("eth0")
		must(err)
		must(c.NoLinkLocal(index))
		for _, p := range ips {
			a := p.Addr()
			if i == 1 {
				a = a.Next()
			}
			must(c.Address(index, netip.PrefixFrom(a, p.Bits())))
		}
		must(c.Up(index))
		must(sw.Running(t.Context(), 10+i))
	}
	for _, p := range ips {
		l, err := netns.Listen(t.Context(), ns[1], "tcp", netip.AddrPortFrom(p.Addr().Next(), 80).String())
		must(err)
		defer l.Close()
		t0 := time.Now()
		c, err := netns.Dial(t.Context(), ns[0], "tcp", l.Addr().String())
		must(err)
		c.Close()
		if took := time.Since(t0); took > 900*time.Millisecond { // a lost SYN costs a second
			t.Errorf("%v: connected after %v", p, took)
		}
	}
	must(sw.Delete(11))
	must(sw.Delete(11)) // gone already
}

func TestTapLivesInItsNamespaceOnly(t *testing.T) {
	needs.Host(t, needs.Root)
	if err := ProbeTap(); err != nil {
		needs.Host(t, needs.Need{Name: "tun", Check: func() string { return err.Error() }})
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	tap, err := Tap(ns, "bo-test-tap")
	if err != nil {
		t.Fatal(err)
	}
	defer tap.Close()
	if _, err := net.InterfaceByName("bo-test-tap"); err == nil {
		t.Error("the TAP shows on the host")
	}
	err = netns.Do(ns, func() error {
		_, err := net.InterfaceByName("bo-test-tap")
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestSettingsAreOfTheNamespace(t *testing.T) {
	needs.Host(t, needs.Root)
	const path = "/proc/sys/net/ipv4/ip_default_ttl"
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	ns, err := netns.New()
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	if err := Sysctl(ns, Setting{"ipv4/ip_default_ttl", "33"}); err != nil {
		t.Fatal(err)
	}
	var inside []byte
	if err := netns.Do(ns, func() (err error) { inside, err = os.ReadFile(path); return err }); err != nil {
		t.Fatal(err)
	}
	if after, _ := os.ReadFile(path); string(inside) != "33\n" || string(after) != string(before) {
		t.Errorf("inside %q, on the host %q; want 33 and %q", inside, after, before)
	}
	if cc, err := Congestion(ns, "no-such", "cubic", "reno"); err != nil || !strings.Contains("cubic reno", cc) {
		t.Errorf("congestion control = %q, %v", cc, err)
	}
}
