package wire

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// superPacket makes a super-packet with a partial checksum as a TAP gives it.
func superPacket(tcp, v6 bool, payload, size int) []byte {
	ip := 20
	if v6 {
		ip = 40
	}
	header := 8
	if tcp {
		header = 32 // with options
	}
	b := make([]byte, vnetLen+etherLen+ip+header+payload)
	p := b[vnetLen:]
	b[0] = needsCsum
	native.PutUint16(b[4:], uint16(size))
	native.PutUint16(b[6:], uint16(etherLen+ip))
	h, t := p[etherLen:etherLen+ip], p[etherLen+ip:]
	proto := byte(17)
	if tcp {
		proto = 6
	}
	if v6 {
		b[1] = gsoTCP6
		binary.BigEndian.PutUint16(p[12:], 0x86dd)
		h[0], h[6], h[7] = 0x60, proto, 64
		copy(h[8:], bytes.Repeat([]byte{0xfd, 1}, 16))
	} else {
		b[1] = gsoTCP4
		binary.BigEndian.PutUint16(p[12:], 0x0800)
		h[0], h[8], h[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(h[4:], 0xfffe) // the ID wraps
		copy(h[12:], []byte{10, 77, 0, 1, 10, 77, 0, 2})
	}
	if tcp {
		native.PutUint16(b[8:], 16)
		binary.BigEndian.PutUint32(t[4:], 0xfffffff0) // the sequence number wraps
		t[12], t[13] = 8<<4, 0x80|0x10|0x08|0x01      // CWR, ACK, PSH, FIN
	} else {
		b[1] = gsoUDP
		native.PutUint16(b[8:], 6)
	}
	for i := range t[header:] {
		t[header+i] = byte(i * 7)
	}
	return b
}

// verify checks a finished frame's checksums as a receiver does.
func verify(t *testing.T, b []byte) (payload []byte) {
	t.Helper()
	p := b[vnetLen:]
	var pseudo uint64
	ip, proto := 20, byte(0)
	if binary.BigEndian.Uint16(p[12:]) == 0x86dd {
		ip, proto = 40, p[etherLen+6]
		pseudo = sum(p[etherLen+8:etherLen+40], 0)
		if got, want := int(binary.BigEndian.Uint16(p[etherLen+4:])), len(p)-etherLen-40; got != want {
			t.Errorf("IPv6 length = %d, want %d", got, want)
		}
	} else {
		h := p[etherLen : etherLen+20]
		proto, pseudo = h[9], sum(h[12:20], 0)
		if fold(sum(h, 0)) != 0xffff {
			t.Error("IPv4 checksum is wrong")
		}
		if got, want := int(binary.BigEndian.Uint16(h[2:])), len(p)-etherLen; got != want {
			t.Errorf("IPv4 length = %d, want %d", got, want)
		}
	}
	l4 := p[etherLen+ip:]
	if fold(sum(l4, pseudo+uint64(proto)+uint64(len(l4)))) != 0xffff {
		t.Error("transport checksum is wrong")
	}
	if proto == 6 {
		return l4[32:]
	}
	if got := int(binary.BigEndian.Uint16(l4[4:])); got != len(l4) {
		t.Errorf("UDP length = %d, want %d", got, len(l4))
	}
	return l4[8:]
}

func TestSplitMakesWhatAReceiverAccepts(t *testing.T) {
	for _, tcp := range []bool{true, false} {
		for _, v6 := range []bool{true, false} {
			for _, payload := range []int{1, 1000, 1001, 2000, 65000} {
				t.Run(fmt.Sprintf("tcp %v v6 %v %d bytes", tcp, v6, payload), func(t *testing.T) {
					b := superPacket(tcp, v6, payload, 1000)
					s, ok := superOf(b)
					if !ok || s.segments != (payload+999)/1000 {
						t.Fatalf("superOf = %+v, %v", s, ok)
					}
					if got, want := onWire(b), int64(payload+s.segments*s.header); got != want {
						t.Errorf("onWire = %d, want %d", got, want)
					}
					var all []byte
					i := 0
					split(b, s, make([]byte, maxFrame), func(seg []byte) {
						c := bytes.Clone(seg)
						finishCsum(c)
						all = append(all, verify(t, c)...)
						l4 := c[vnetLen+s.transport:]
						last := i == s.segments-1
						if tcp {
							if got, want := binary.BigEndian.Uint32(l4[4:]), 0xfffffff0+uint32(i*1000); got != want {
								t.Errorf("segment %d: sequence number %x, want %x", i, got, want)
							}
							want := byte(0x10)
							if i == 0 {
								want |= 0x80
							}
							if last {
								want |= 0x09
							}
							if l4[13] != want {
								t.Errorf("segment %d: flags %02x, want %02x", i, l4[13], want)
							}
						}
						if !v6 {
							if got, want := binary.BigEndian.Uint16(c[vnetLen+etherLen+4:]), uint16(0xfffe+i); got != want {
								t.Errorf("segment %d: ID %x, want %x", i, got, want)
							}
						}
						i++
					})
					if want := b[vnetLen+s.header:]; !bytes.Equal(all, want) {
						t.Errorf("payload came out changed: %d bytes of %d", len(all), len(want))
					}
				})
			}
		}
	}
}

func TestSuperPacketsAreSplitOnlyWherePacketsHaveAFate(t *testing.T) {
	for _, tt := range []struct {
		name string
		imp  Impairment
		want int
	}{
		{"healthy", Impairment{}, 1},
		{"pure delay", Impairment{Delay: ms}, 1},
		{"loss", Impairment{Loss: 1e-12}, 10},
		{"jitter", Impairment{Delay: ms, Jitter: 1, Ordered: true}, 10},
		{"slow rate", Impairment{RateBitsPerSec: 100e6}, 10},
		{"a rate at which it is no burst", Impairment{RateBitsPerSec: 10e9}, 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			e := engine(tt.imp)
			b := superPacket(true, false, 10_000, 1000)
			c := e.Alloc(len(b))
			copy(c, b)
			e.Push(0, 1, c, 0)
			if e.Held() != tt.want {
				t.Errorf("%d frames, want %d", e.Held(), tt.want)
			}
			if got, want := e.Counters(0, 1).Bytes, uint64(10_000+10*(14+20+32)); got != want {
				t.Errorf("counted %d bytes, want %d", got, want)
			}
		})
	}
}

// FuzzFrame feeds the engine what a TAP could never give, and checks that it
// neither crashes nor loses a buffer.
func FuzzFrame(f *testing.F) {
	f.Add(superPacket(true, false, 3000, 1000))
	f.Add(superPacket(false, true, 3000, 1000))
	f.Add(make([]byte, vnetLen+etherLen))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if len(raw) < vnetLen+etherLen+1 || len(raw) > maxFrame {
			t.Skip()
		}
		e := engine(Impairment{Delay: ms, Corrupt: 1, Duplicate: 0.5})
		b := e.Alloc(len(raw))
		copy(b, raw)
		e.Push(0, 1, b, 0)
		n := 0
		for {
			g, ok := e.Pop(1 << 60)
			if !ok {
				break
			}
			n++
			e.Free(g.Data)
		}
		if c := e.Counters(0, 1); e.bytes != 0 || uint64(n) != c.Seen+c.Duplicated {
			t.Errorf("%d bytes are lost; %d frames of %+v came out", e.bytes, n, c)
		}
	})
}
