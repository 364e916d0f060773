package wire

import (
	"encoding/binary"
	"time"
)

// A frame is what a TAP with IFF_VNET_HDR gives and takes: a virtio-net header
// in native order, then Ethernet. (Virtual I/O Device 1.2, section 5.1.6.)
const (
	vnetLen  = 10
	etherLen = 14
	// maxFrame is the largest frame: a TCP super-packet of 64 KiB and its headers.
	maxFrame = vnetLen + etherLen + 64<<10 + 64

	// maxSegments bounds what one read can become. The kernel's own bound is
	// 64 KiB of segments of 48 bytes.
	maxSegments = 2048

	needsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM

	gsoNone, gsoTCP4, gsoTCP6, gsoUDP = 0, 1, 4, 5 // VIRTIO_NET_HDR_GSO_*
	gsoECN                            = 0x80
)

var native = binary.NativeEndian

// The switch's eBPF program puts a mark over both MAC addresses, which say
// nothing but two port numbers anyway: destination and source (port+1), two
// bytes of nothing, and when the frame came in, by CLOCK_MONOTONIC.
// NB: internal/sys/bpf writes it.

// readMark returns the ports and the arrival of a frame, or false if it is none of ours.
func readMark(b []byte) (src, dst int, arrival time.Duration, ok bool) {
	if len(b) < vnetLen+etherLen {
		return 0, 0, 0, false
	}
	m := b[vnetLen:]
	dst, src = int(m[0])-1, int(m[1])-1
	arrival = time.Duration(native.Uint64(m[4:12]))
	return src, dst, arrival, src >= 0 && src < MaxPorts && dst >= 0 && dst < MaxPorts
}

// restoreMAC undoes the mark.
func restoreMAC(b []byte, src, dst int) {
	m := b[vnetLen:]
	m[0], m[1], m[2], m[3], m[4], m[5] = 0x02, 'b', 'o', 0, 0, byte(dst+1)
	m[6], m[7], m[8], m[9], m[10], m[11] = 0x02, 'b', 'o', 0, 0, byte(src+1)
}

// A super is a super-packet taken apart: its headers end where its payload begins.
type super struct {
	transport int // offset of TCP or UDP from the Ethernet header
	header    int // length of all headers with Ethernet's
	size      int // payload of each segment but the last
	segments  int
	tcp, v6   bool
}

// superOf returns the shape of a super-packet, or false if b is a plain frame
// or of a kind that cannot be split.
func superOf(b []byte) (s super, ok bool) {
	kind := b[1] &^ gsoECN
	if kind == gsoNone || b[0]&needsCsum == 0 {
		return s, false
	}
	p := b[vnetLen:]
	s.size, s.transport = int(native.Uint16(b[4:])), int(native.Uint16(b[6:]))
	switch binary.BigEndian.Uint16(p[12:]) {
	case 0x0800:
	case 0x86dd:
		s.v6 = true
	default:
		return s, false
	}
	if s.size == 0 || s.transport < etherLen+20 || s.transport+8 > len(p) || s.v6 && s.transport < etherLen+40 {
		return s, false
	}
	switch kind {
	case gsoTCP4, gsoTCP6:
		if s.transport+20 > len(p) {
			return s, false
		}
		s.tcp = true
		s.header = s.transport + int(p[s.transport+12]>>4)*4
	case gsoUDP:
		s.header = s.transport + 8
	default:
		return s, false
	}
	if s.header >= len(p) {
		return s, false
	}
	s.segments = (len(p) - s.header + s.size - 1) / s.size
	return s, s.segments <= maxSegments
}

// onWire returns how many bytes b is on a network without offloads.
func onWire(b []byte) int64 {
	n := len(b) - vnetLen
	if b[1] == gsoNone {
		return int64(n)
	}
	if s, ok := superOf(b); ok {
		n += (s.segments - 1) * s.header
	}
	return int64(n)
}

// split calls emit with each segment of a super-packet in turn, in buf, as TCP
// and UDP segmentation of the kernel make them (RFC 9293 on sequence numbers,
// RFC 3168 section 6.1.2 on CWR): checksums are left unfinished, with the sum of
// the pseudo-header renewed.
func split(b []byte, s super, buf []byte, emit func([]byte)) {
	p := b[vnetLen:]
	payload := p[s.header:]
	transportLen := s.header - s.transport
	for i := range s.segments {
		n := min(s.size, len(payload))
		last := i == s.segments-1
		o := buf[:vnetLen+s.header+n]
		clear(o[:vnetLen])
		copy(o[vnetLen:], p[:s.header])
		copy(o[vnetLen+s.header:], payload[:n])
		payload = payload[n:]

		q := o[vnetLen:]
		var pseudo uint64
		if s.v6 {
			binary.BigEndian.PutUint16(q[etherLen+4:], uint16(s.header-etherLen-40+n))
			pseudo = sum(q[etherLen+8:etherLen+40], 0)
		} else {
			ip := q[etherLen:s.transport]
			binary.BigEndian.PutUint16(ip[2:], uint16(s.header-etherLen+n))
			binary.BigEndian.PutUint16(ip[4:], binary.BigEndian.Uint16(ip[4:])+uint16(i))
			ip[10], ip[11] = 0, 0
			binary.BigEndian.PutUint16(ip[10:], ^fold(sum(ip, 0)))
			pseudo = sum(ip[12:20], 0)
		}
		t := q[s.transport:]
		pseudo += uint64(transportLen + n)
		check := 6 // of the checksum in UDP
		if s.tcp {
			check = 16
			pseudo += 6
			binary.BigEndian.PutUint32(t[4:], binary.BigEndian.Uint32(t[4:])+uint32(i*s.size))
			const fin, psh, cwr = 0x01, 0x08, 0x80
			if !last {
				t[13] &^= fin | psh
			}
			if i > 0 {
				t[13] &^= cwr
			}
		} else {
			pseudo += 17
			binary.BigEndian.PutUint16(t[4:], uint16(transportLen+n))
		}
		binary.BigEndian.PutUint16(t[check:], fold(pseudo))
		o[0] = needsCsum
		native.PutUint16(o[6:], uint16(s.transport))
		native.PutUint16(o[8:], uint16(check))
		emit(o)
	}
}

// finishCsum completes an unfinished checksum, so that a later bit flip is
// noticed instead of being signed.
func finishCsum(b []byte) {
	if b[0]&needsCsum != 0 {
		start, off := int(native.Uint16(b[6:])), int(native.Uint16(b[8:]))
		p := b[vnetLen:]
		if start+off+2 <= len(p) {
			c := ^fold(sum(p[start:], 0))
			if c == 0 {
				c = 0xffff // 0 means none in UDP
			}
			binary.BigEndian.PutUint16(p[start+off:], c)
		}
	}
	clear(b[:vnetLen])
}

// sum adds up 16-bit words as the Internet checksum does (RFC 1071).
func sum(b []byte, s uint64) uint64 {
	for len(b) >= 4 {
		s += uint64(binary.BigEndian.Uint32(b))
		b = b[4:]
	}
	if len(b) >= 2 {
		s += uint64(binary.BigEndian.Uint16(b))
		b = b[2:]
	}
	if len(b) == 1 {
		s += uint64(b[0]) << 8
	}
	return s
}

func fold(s uint64) uint16 {
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}
