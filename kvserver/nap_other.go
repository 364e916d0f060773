//go:build !linux

package kvserver

import "time"

func nap(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	<-t.C
}
