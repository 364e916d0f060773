package bpf

import (
	"encoding/binary"
	"errors"
	"net/netip"
	"testing"

	"github.com/cilium/ebpf"

	"brownout/internal/needs"
)

// segment is a TCP packet in an Ethernet frame, IPv4 with options if words > 5.
func segment(src, dst netip.AddrPort, words int, flags byte) []byte {
	b := make([]byte, 14)
	if src.Addr().Is4() {
		b[12], b[13] = 0x08, 0x00
		ip := make([]byte, 4*words)
		ip[0], ip[9] = 0x40|byte(words), 6
		copy(ip[12:], src.Addr().AsSlice())
		copy(ip[16:], dst.Addr().AsSlice())
		b = append(b, ip...)
	} else {
		b[12], b[13] = 0x86, 0xdd
		ip := make([]byte, 40)
		ip[0], ip[6] = 0x60, 6
		copy(ip[8:], src.Addr().AsSlice())
		copy(ip[24:], dst.Addr().AsSlice())
		b = append(b, ip...)
	}
	tcp := make([]byte, 20)
	binary.BigEndian.PutUint16(tcp, src.Port())
	binary.BigEndian.PutUint16(tcp[2:], dst.Port())
	tcp[13] = flags
	return append(b, tcp...)
}

func TestFlowsAreDroppedOneByOne(t *testing.T) {
	needs.Host(t, needs.Root)
	f, err := LoadFlows()
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	at := netip.MustParseAddrPort
	a, b, other := at("10.77.0.1:4000"), at("10.77.0.2:6379"), at("10.77.0.1:4001")
	a6, b6 := at("[fd77::1]:4000"), at("[fd77::2]:6379")
	anyA, anyB := netip.AddrPortFrom(a.Addr(), 0), netip.AddrPortFrom(b.Addr(), 0)
	const ack, syn, next, shot = 0x10, 0x02, ^uint32(0), uint32(actShot)
	cut := []Flow{{a, b}, {a6, b6}, {anyB, anyA}}
	for _, flow := range cut {
		if err := f.Cut(flow); err != nil {
			t.Fatal(err)
		}
	}
	udp := segment(a, b, 5, ack)
	udp[23] = 17
	fragment := segment(a, b, 5, ack)
	fragment[21] = 9
	for _, tt := range []struct {
		name  string
		frame []byte
		want  uint32
	}{
		{"the flow", segment(a, b, 5, ack), shot},
		{"the flow, with IP options", segment(a, b, 8, ack), shot},
		{"its other direction", segment(b, a, 5, ack), next},
		{"another port", segment(other, b, 5, ack), next},
		{"a new connection in its direction", segment(a, b, 5, syn), next},
		{"a new connection where none may begin", segment(b, a, 5, syn), shot},
		{"the answer to one", segment(b, other, 5, syn|ack), shot},
		{"IPv6", segment(a6, b6, 0, ack), shot},
		{"IPv6, its other direction", segment(b6, a6, 0, ack), next},
		{"UDP", udp, next},
		{"a later fragment", fragment, next},
		{"a stump", segment(a, b, 5, ack)[:40], 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := f.prog.Run(&ebpf.RunOptions{Data: tt.frame})
			if errors.Is(err, ebpf.ErrNotSupported) {
				t.Skip(err)
			}
			if tt.want == 0 && got != shot && err == nil {
				return // what cannot be read is not dropped by us, nor is the frame let through twice
			}
			if err != nil || got != tt.want {
				t.Errorf("program returned %d, %v; want %d", int32(got), err, int32(tt.want))
			}
		})
	}
	if n, ok := f.Dropped(Flow{a, b}); n != 2 || !ok {
		t.Errorf("%d packets were dropped, %v; want 2", n, ok)
	}
	for range 2 { // healing twice is no error
		if err := f.Heal(Flow{a, b}); err != nil {
			t.Error(err)
		}
	}
	if got, err := f.prog.Run(&ebpf.RunOptions{Data: segment(a, b, 5, ack)}); err == nil && got != next {
		t.Errorf("a healed flow: %d", int32(got))
	}
}
