package kvserver

import (
	"runtime"
	"sync"
)

// share is how many of a host's CPUs a node takes for its own if it has the host
// together with its peers: a Go program looks for work on every CPU that it thinks
// it has, which costs the others more than it gains.
func share(cpus, peers int) int { return max(1, (cpus+peers-1)/max(1, peers)) }

// lending is held by who changes the number of Ps, or holds one of them.
var lending sync.Mutex

// lendProcs lets more threads run Go code at once, or fewer if n is negative. Who
// sleeps in the kernel for a fault keeps a P from the others, for up to 10 ms
// until the runtime finds out: it shall be one that they would not have had.
func lendProcs(n int) {
	if n == 0 {
		return
	}
	lending.Lock()
	defer lending.Unlock()
	runtime.GOMAXPROCS(runtime.GOMAXPROCS(0) + n)
}
