package scenarios

import (
	"strings"
	"testing"
	"time"
)

func TestParseFault(t *testing.T) {
	for _, tt := range []struct {
		name   string
		kind   string
		words  []string
		length time.Duration
		err    string
	}{
		{"until it is removed", "net.delay", []string{"from=leader", "to=followers", "add=5ms"}, 0, ""},
		{"for a time", "disk.delay", []string{"on=n2", "op=fsync", "add=20ms", "for=30s"}, 30 * time.Second, ""},
		{"a profile", "net.partition", []string{"split=n1 | n2,n3", "profile.flap=2s", "profile.duty=20%"}, 0, ""},
		{"an unknown word of a profile", "net.partition", []string{"split=n1 | n2,n3", "profile.flip=2s"}, 0, "flap"},
		{"a split", "net.partition", []string{"split=n1 | n2,n3"}, 0, ""},
		{"several nodes", "cpu.quota", []string{"on=n1,n2", "percent=20%"}, 0, ""},
		{"by itself over", "gc.pause", []string{"on=leader", "length=200ms"}, 0, ""},
		{"until restarted by removal", "process.kill", []string{"on=leader"}, 0, ""},
		{"an unknown kind", "net.dealy", []string{"from=leader"}, 0, `unknown fault "net.dealy" — did you mean "net.delay"?`},
		{"an unknown word", "net.delay", []string{"from=leader", "to=followers", "ad=5ms"}, 0, `"add"`},
		{"a missing word", "net.delay", []string{"from=leader", "to=followers"}, 0, "add"},
		{"no unit", "net.delay", []string{"from=leader", "to=followers", "add=5"}, 0, "5"},
		{"no node of that name", "disk.delay", []string{"on=n7", "add=5ms"}, 0, "n7"},
		{"a shard's leader", "disk.delay", []string{"on=leader of shard 1", "add=5ms"}, 0, ""},
		{"a key's leader", "net.delay", []string{"from=leader of key k7", "to=followers of key k7", "add=5ms"}, 0, ""},
		{"no such shard", "disk.delay", []string{"on=leader of shard 2", "add=5ms"}, 0, "there is no shard 2: the cluster has 2 shards — shard 0 to shard 1"},
		{"a shard of nobody", "disk.delay", []string{"on=minority of shard 1", "add=5ms"}, 0, "minority of shard 1"},
		{"neither shard nor key", "disk.delay", []string{"on=leader of kings", "add=5ms"}, 0, "neither a shard nor a key"},
		{"a cache", "process.pause", []string{"on=cache", "length=1s"}, 0, ""},
		{"the way to a cache", "net.delay", []string{"from=leader", "to=cache", "add=5ms"}, 0, ""},
		{"a cache and itself", "net.delay", []string{"from=cache", "to=cache", "add=5ms"}, 0, "no link from cache to cache"},
		{"nothing to write through to", "process.pause", []string{"on=cache", "length=1s"}, 0, "there is no cache: the nodes write through to nothing — target.downstream makes one"},
		{"no value", "disk.delay", []string{"on"}, 0, "NAME=VALUE"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, err := ParseFault(tt.kind, tt.words, 3, 2, strings.Contains(tt.name, "cache"))
			switch {
			case tt.err != "":
				if err == nil || !strings.Contains(err.Error(), tt.err) {
					t.Errorf("ParseFault(%s %v) = %+v, %v; want an error with %q", tt.kind, tt.words, f, err, tt.err)
				}
			case err != nil || f.Kind != tt.kind || f.End-f.Start != tt.length:
				t.Errorf("ParseFault(%s %v) = %+v, %v; want length %v", tt.kind, tt.words, f, err, tt.length)
			}
		})
	}
}
