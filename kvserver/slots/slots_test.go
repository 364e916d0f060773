package slots

import "testing"

// TestSlots compares with the values of the Redis Cluster specification, and of
// another implementation of the checksum (crc_hqx of Python).
func TestSlots(t *testing.T) {
	for key, want := range map[string]int{
		"": 0, "foo": 12182, "bar": 5061, "123456789": 0x31c3, "{user1000}.following": 3443, "{user1000}.followers": 3443,
		"user1000": 3443, "foo{}{bar}": 8363, "foo{{bar}}zap": 4015, "foo{bar}{zap}": 5061, "{bar": 4015, "}bar{": 1498,
	} {
		if got := Of(key); got != want {
			t.Errorf("slot of %q = %d, want %d", key, got, want)
		}
	}
}

func TestShardsShareTheSlots(t *testing.T) {
	for n := 1; n <= MaxShards; n++ {
		next := 0
		for shard := range n {
			first, last := Range(shard, n)
			if first != next || Shard(first, n) != shard || Shard(last, n) != shard {
				t.Fatalf("shard %d of %d has slots %d to %d, want from %d", shard, n, first, last, next)
			}
			if size := last - first + 1; size < Count/n || size > Count/n+1 {
				t.Errorf("shard %d of %d has %d slots, want its share", shard, n, size)
			}
			next = last + 1
		}
		if next != Count {
			t.Errorf("%d shards have %d slots, want %d", n, next, Count)
		}
	}
}
