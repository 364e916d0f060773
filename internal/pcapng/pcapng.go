// Package pcapng writes captured frames in the format of the same name
// (draft-ietf-opsawg-pcapng), as Wireshark and tcpdump read it: little-endian,
// Ethernet, time stamps in nanoseconds.
package pcapng

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
)

// Block types, and the options that we write.
const (
	sectionHeader  = 0x0a0d0d0a
	interfaceBlock = 1
	statistics     = 5
	packet         = 6

	byteOrder = 0x1a2b3c4d
	ethernet  = 1 // LINKTYPE_ETHERNET

	optEnd      = 0
	shbUserAppl = 4
	ifName      = 2
	ifTSResol   = 9
	epbFlags    = 2
	isbDrop     = 5

	nano = 9 // 10^-9 s
)

// A Direction is which way a frame went at its interface.
type Direction uint32

// Directions, as epb_flags has them.
const (
	In  Direction = 1
	Out Direction = 2
)

// A Packet is one frame at one interface.
type Packet struct {
	Interface int
	At        time.Duration // since 1970
	Direction Direction
	Data      []byte // as much as was captured
	Length    int    // on the link
}

// A Writer writes one section.
type Writer struct {
	w          io.Writer
	interfaces int
	buf        []byte
}

// NewWriter begins a section with interfaces of these names.
func NewWriter(w io.Writer, application string, interfaces ...string) (*Writer, error) {
	pw := &Writer{w: w, interfaces: len(interfaces)}
	body := le32(nil, byteOrder)
	body = le16(body, 1, 0)                                   // version
	body = binary.LittleEndian.AppendUint64(body, ^uint64(0)) // of unknown length
	body = option(body, shbUserAppl, []byte(application))
	if err := pw.block(sectionHeader, option(body, optEnd, nil)); err != nil {
		return nil, err
	}
	for _, name := range interfaces {
		body := le16(nil, ethernet, 0)
		body = le32(body, 0) // no limit of the captured length
		body = option(body, ifName, []byte(name))
		body = option(body, ifTSResol, []byte{nano})
		if err := pw.block(interfaceBlock, option(body, optEnd, nil)); err != nil {
			return nil, err
		}
	}
	return pw, nil
}

// Write adds a frame.
func (w *Writer) Write(p Packet) error {
	if p.Interface < 0 || p.Interface >= w.interfaces {
		return fmt.Errorf("write packet: no interface %d", p.Interface)
	}
	at := uint64(p.At)
	body := le32(w.buf[:0], uint32(p.Interface), uint32(at>>32), uint32(at), uint32(len(p.Data)), uint32(p.Length))
	body = pad(append(body, p.Data...))
	body = option(body, epbFlags, le32(nil, uint32(p.Direction)))
	w.buf = option(body, optEnd, nil)
	return w.block(packet, w.buf)
}

// Drops says at the end how many frames of an interface were missed.
func (w *Writer) Drops(i int, at time.Duration, n uint64) error {
	body := le32(nil, uint32(i), uint32(uint64(at)>>32), uint32(at))
	body = option(body, isbDrop, binary.LittleEndian.AppendUint64(nil, n))
	return w.block(statistics, option(body, optEnd, nil))
}

func (w *Writer) block(kind uint32, body []byte) error {
	size := uint32(len(body) + 12)
	b := append(le32(make([]byte, 0, size), kind, size), body...)
	_, err := w.w.Write(le32(b, size))
	return err
}

func option(b []byte, code uint16, value []byte) []byte {
	b = le16(b, code, uint16(len(value)))
	return pad(append(b, value...))
}

func pad(b []byte) []byte {
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func le16(b []byte, vs ...uint16) []byte {
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint16(b, v)
	}
	return b
}

func le32(b []byte, vs ...uint32) []byte {
	for _, v := range vs {
		b = binary.LittleEndian.AppendUint32(b, v)
	}
	return b
}
