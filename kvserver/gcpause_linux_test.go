package kvserver

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

// TestTheWorldStopsOnHowManyCPUsSoever is in a process of its own: a world that
// nobody starts again could not fail a test either.
func TestTheWorldStopsOnHowManyCPUsSoever(t *testing.T) {
	const asked, inside = 30 * time.Millisecond, "BROWNOUT_TEST_STOPPED_WORLD"
	if os.Getenv(inside) != "" {
		procs := runtime.GOMAXPROCS(0)
		took, err := stopTheWorld(asked)
		if err != nil || took < asked || runtime.GOMAXPROCS(0) != procs {
			t.Errorf("stopped for %v, %v, %d CPUs after %d; want %v or more", took, err, runtime.GOMAXPROCS(0), procs, asked)
		}
		return
	}
	for _, procs := range []int{1, 2, 8} {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		cmd := exec.CommandContext(ctx, os.Args[0], "-test.run", "^"+t.Name()+"$")
		cmd.Env = append(os.Environ(), inside+"=1", fmt.Sprint("GOMAXPROCS=", procs))
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("with GOMAXPROCS %d: %v\n%s", procs, err, out)
		}
	}
}
