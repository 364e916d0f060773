package pcapng

import (
	"bytes"
	"encoding/binary"
	"testing"
	"time"
)

// blocks takes a file apart, by the lengths at both ends of each block.
func blocks(t *testing.T, b []byte) (kinds []uint32, bodies [][]byte) {
	t.Helper()
	le := binary.LittleEndian
	for len(b) > 0 {
		if len(b) < 12 {
			t.Fatalf("%d bytes are left", len(b))
		}
		size := le.Uint32(b[4:])
		if size%4 != 0 || int(size) > len(b) || le.Uint32(b[size-4:]) != size {
			t.Fatalf("a block of %d bytes, %d at its end", size, le.Uint32(b[size-4:]))
		}
		kinds, bodies = append(kinds, le.Uint32(b)), append(bodies, b[8:size-4])
		b = b[size:]
	}
	return kinds, bodies
}

func TestFileIsBlocksOfTheFormat(t *testing.T) {
	var file bytes.Buffer
	w, err := NewWriter(&file, "test", "n1", "n2")
	if err != nil {
		t.Fatal(err)
	}
	at := 1_700_000_000*time.Second + 123456789
	for n := range 5 { // all paddings
		if err := w.Write(Packet{Interface: n % 2, At: at, Direction: Out, Data: bytes.Repeat([]byte{7}, 60+n), Length: 1500}); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Drops(1, at, 9); err != nil {
		t.Fatal(err)
	}
	if err := w.Write(Packet{Interface: 2}); err == nil {
		t.Error("a packet of an interface that there is not was written")
	}
	kinds, bodies := blocks(t, file.Bytes())
	want := []uint32{sectionHeader, interfaceBlock, interfaceBlock, packet, packet, packet, packet, packet, statistics}
	if len(kinds) != len(want) {
		t.Fatalf("blocks %x, want %x", kinds, want)
	}
	for i := range want {
		if kinds[i] != want[i] {
			t.Errorf("block %d is %x, want %x", i, kinds[i], want[i])
		}
	}
	le := binary.LittleEndian
	second := bodies[4]
	stamp := time.Duration(uint64(le.Uint32(second[4:]))<<32 | uint64(le.Uint32(second[8:])))
	if le.Uint32(second) != 1 || stamp != at || le.Uint32(second[12:]) != 61 || le.Uint32(second[16:]) != 1500 {
		t.Errorf("packet: interface %d at %v, %d of %d bytes", le.Uint32(second), stamp, le.Uint32(second[12:]), le.Uint32(second[16:]))
	}
	if flags := second[20+64:]; le.Uint16(flags) != epbFlags || le.Uint32(flags[4:]) != uint32(Out) {
		t.Errorf("flags %x", flags)
	}
}
