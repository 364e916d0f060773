package faults

import "testing"

func TestWhatIsMountedLastIsOnTop(t *testing.T) {
	const (
		root = "22 27 254:0 / / rw,relatime - ext4 /dev/vda rw\n"
		slow = "30 22 0:50 / /data rw,nosuid - fuse.slowfs slowfs rw\n"
		tmp  = "31 30 0:63 / /data rw,relatime shared:1 - tmpfs tmpfs rw\n"
		near = "32 22 0:64 / /data2 rw,relatime - tmpfs tmpfs rw\n"
	)
	for _, tt := range []struct{ info, want string }{
		{root + slow + near, "fuse.slowfs 0:50"},
		{root + slow + tmp + near, "tmpfs 0:63"},
		{root + near, "no mount"},
	} {
		if got := mountedAt("/data", tt.info); got != tt.want {
			t.Errorf("mountedAt(%q) = %q, want %q", tt.info, got, tt.want)
		}
	}
}
