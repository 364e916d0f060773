package capture

import (
	"bytes"
	"net/netip"
	"testing"
	"time"

	"brownout/internal/sys/netns/netnstest"
	"brownout/internal/sys/stamp"
)

func TestFramesAreHeardInBothDirections(t *testing.T) {
	ns := netnstest.Loopback(t)
	if _, err := Open(ns, "eth7"); err == nil {
		t.Error("a device that there is not was opened")
	}
	s, err := Open(ns, "lo")
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	u, err := stamp.Open(ns, netip.MustParseAddr("127.0.0.1"), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	before := time.Duration(time.Now().UnixNano())
	word := []byte("a word of its own")
	u.Send(u.Addr(), [][]byte{word})
	var in, out int
	for end := time.Now().Add(5 * time.Second); (in == 0 || out == 0) && time.Now().Before(end); {
		err := s.Read(func(f Frame) {
			if !bytes.HasSuffix(f.Data, word) || f.Length != len(f.Data) {
				return
			}
			if now := time.Duration(time.Now().UnixNano()); f.At < before || f.At > now {
				t.Errorf("a frame at %v, not in %v..%v", f.At, before, now)
			}
			if f.Out {
				out++
			} else {
				in++
			}
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if in != 1 || out != 1 || s.Lost() != 0 {
		t.Errorf("%d came in and %d went out, %d lost; want one each", in, out, s.Lost())
	}
}
