package stamp

import (
	"encoding/binary"
	"net/netip"
	"testing"
	"time"

	"brownout/internal/sys/netns/netnstest"
)

func TestDatagramsArriveInOrderWithTheKernelsTime(t *testing.T) {
	ns := netnstest.Loopback(t)
	home := netip.MustParseAddr("127.0.0.1")
	a, err := Open(ns, home, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	b, err := Open(ns, home, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	const n = 3*batch + 1 // more than one call takes
	var all [][]byte
	for i := range n {
		all = append(all, binary.BigEndian.AppendUint32(make([]byte, i), uint32(i)))
	}
	before := time.Duration(time.Now().UnixNano())
	if got := a.Send(b.Addr(), all); got != n {
		t.Fatalf("%d of %d datagrams were sent", got, n)
	}
	var seen int
	for end := time.Now().Add(5 * time.Second); seen < n && time.Now().Before(end); {
		b.Receive(func(d []byte, at time.Duration) {
			if len(d) != seen+4 || int(binary.BigEndian.Uint32(d[seen:])) != seen {
				t.Errorf("datagram %d has %d bytes", seen, len(d))
			}
			if now := time.Duration(time.Now().UnixNano()); at < before || at > now {
				t.Errorf("datagram %d came at %v, not in %v..%v", seen, at, before, now)
			}
			seen++
		})
	}
	if seen != n {
		t.Errorf("%d of %d datagrams came in", seen, n)
	}
	var train []byte
	for i := range n {
		train = binary.BigEndian.AppendUint32(append(train, make([]byte, 996)...), uint32(i))
	}
	if !a.SendSegments(b.Addr(), train, 1000) {
		t.Skip("the kernel does not segment UDP")
	}
	seen = 0
	for end := time.Now().Add(5 * time.Second); seen < n && time.Now().Before(end); {
		b.Receive(func(d []byte, _ time.Duration) {
			if len(d) != 1000 || int(binary.BigEndian.Uint32(d[996:])) != seen {
				t.Errorf("segment %d has %d bytes", seen, len(d))
			}
			seen++
		})
	}
	if seen != n {
		t.Errorf("%d of %d segments came in", seen, n)
	}
	a.Receive(func([]byte, time.Duration) { t.Error("there is an answer to nobody's question") })
}
