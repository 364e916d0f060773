package cluster

import (
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"brownout/internal/sys/netns"
	"brownout/internal/wire"
)

// BenchmarkHealthyPair compares the round trip of a healthy pair while another
// one is impaired and carries 2000 frames a second with the same where nothing
// is impaired, and with that of a bridge without any program. They take turns,
// on one CPU, so that no wake-up of another adds its own time.
func BenchmarkHealthyPair(b *testing.B) {
	r := newRig(b, 3)
	bare := newRig(b, 0)
	bare.steer.Close()
	bare.steer = nil
	bare.add(b, 0)
	bare.add(b, 1)
	with, without := r.pingPong(b, 0, 1), bare.pingPong(b, 0, 1)
	with.rtts(200)
	without.rtts(200)
	const bridge, clean, busy, impaired = 0, 1, 2, 3
	var all [4][]time.Duration
	var added, program []time.Duration // by rounds
	for b.Loop() {
		var mid [4]time.Duration
		round := func(i int, p *pingPong) {
			got := p.rtts(500)
			slices.Sort(got)
			mid[i] = got[len(got)/2]
			all[i] = append(all[i], got...)
		}
		beside := func(i int) {
			traffic := make(chan struct{})
			go func() {
				defer close(traffic)
				r.paced(b, 0, 2, 100, 64, 500*time.Microsecond)
			}()
			for done := false; !done; {
				round(i, with)
				select {
				case <-traffic:
					done = true
				default:
				}
			}
		}
		round(bridge, without)
		round(clean, with)
		beside(busy)
		r.impair(b, 0, 2, wire.Impairment{Delay: 10 * time.Millisecond})
		beside(impaired)
		r.impair(b, 0, 2, wire.Impairment{})
		added, program = append(added, mid[impaired]-mid[busy]), append(program, mid[clean]-mid[bridge])
	}
	for i, name := range []string{"bridge-p50-µs", "clean-p50-µs", "busy-p50-µs", "impaired-p50-µs"} {
		slices.Sort(all[i])
		b.ReportMetric(quantile(all[i], 0.5), name)
	}
	slices.Sort(added)
	slices.Sort(program)
	b.ReportMetric(quantile(added, 0.5), "added-by-fault-µs")
	b.ReportMetric(quantile(program, 0.5), "added-by-switch-µs")
	b.ReportMetric(float64(len(all[impaired])), "n")
}

// pingPong answers on one locked thread what another asks, by blocking system
// calls, both on the first CPU: the Go poller, or a wake-up of another CPU, would
// cost more than the links that are compared.
type pingPong struct{ ask, answer int }

func (r *rig) pingPong(tb testing.TB, i, j int) *pingPong {
	tb.Helper()
	open := func(i, port int) (fd int) {
		err := netns.Do(r.ns[i], func() (err error) {
			if fd, err = unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0); err != nil {
				return err
			}
			limit := unix.NsecToTimeval(int64(time.Second))
			unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit)
			return unix.Bind(fd, &unix.SockaddrInet4{Port: port})
		})
		if err != nil {
			tb.Fatal(err)
		}
		return fd
	}
	p := &pingPong{ask: open(i, 0), answer: open(j, echoPort)}
	if err := unix.Connect(p.ask, &unix.SockaddrInet4{Port: echoPort, Addr: IP4(j).As4()}); err != nil {
		tb.Fatal(err)
	}
	done, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		defer onFirstCPU()()
		buf := make([]byte, 64)
		for {
			select {
			case <-done:
				return
			default:
			}
			n, from, err := unix.Recvfrom(p.answer, buf, 0)
			if err == nil {
				unix.Sendto(p.answer, buf[:n], 0, from)
			}
		}
	}()
	tb.Cleanup(func() {
		close(done)
		<-stopped
		unix.Close(p.ask)
		unix.Close(p.answer)
	})
	return p
}

func (p *pingPong) rtts(n int) []time.Duration {
	defer onFirstCPU()()
	all := make([]time.Duration, 0, n)
	buf := make([]byte, 64)
	for range n {
		t0 := time.Now()
		unix.Write(p.ask, buf)
		if _, err := unix.Read(p.ask, buf); err == nil {
			all = append(all, time.Since(t0))
		}
	}
	return all
}

// onFirstCPU keeps the calling goroutine on one CPU until it calls what is returned.
func onFirstCPU() func() {
	runtime.LockOSThread()
	var was, one unix.CPUSet
	unix.SchedGetaffinity(0, &was)
	for i := range 1024 {
		if was.IsSet(i) {
			one.Set(i)
			break
		}
	}
	unix.SchedSetaffinity(0, &one)
	return func() {
		unix.SchedSetaffinity(0, &was)
		runtime.UnlockOSThread()
	}
}
