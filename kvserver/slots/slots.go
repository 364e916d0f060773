// Package slots says which shard a key belongs to. It is arithmetic alone, for
// whoever has to know that of a cluster: the nodes, their clients, and those who
// judge what became of a key.
//
// Keys belong to slots as in Redis Cluster, and slots to shards: each shard, a
// Raft group of its own, has one range of them. So a client of Redis Cluster
// finds its way with CLUSTER SLOTS and -MOVED, and keys with the same {tag} are
// together.
package slots

import (
	"sync"
)

// Count is the number of slots, MaxShards that of shards.
const (
	Count     = 16384
	MaxShards = 64
)

// Of is Redis' key hash slot (cluster.c keyHashSlot): of what is between the
// first brace and the next closing one, if that is anything.
func Of[K []byte | string](key K) int {
	t := tag(key)
	table := crcTable()
	var crc uint16
	for i := range len(t) {
		crc = crc<<8 ^ table[byte(crc>>8)^t[i]]
	}
	return int(crc) % Count
}

func tag[K []byte | string](key K) K {
	for i := range len(key) {
		if key[i] != '{' {
			continue
		}
		for j := i + 1; j < len(key); j++ {
			if key[j] == '}' {
				if j == i+1 {
					return key
				}
				return key[i+1 : j]
			}
		}
		return key
	}
	return key
}

// crcTable is that of CRC-16/XMODEM: polynomial 0x1021, most significant bit first.
var crcTable = sync.OnceValue(func() *[256]uint16 {
	var t [256]uint16
	for i := range t {
		crc := uint16(i) << 8
		for range 8 {
			carry := crc&0x8000 != 0
			if crc <<= 1; carry {
				crc ^= 0x1021
			}
		}
		t[i] = crc
	}
	return &t
})

// Shard returns the shard of a slot, of so many shards.
func Shard(slot, shards int) int { return slot * shards / Count }

// ShardOf returns the shard of a key, of so many; of one or fewer it is shard 0.
func ShardOf[K []byte | string](key K, shards int) int {
	if shards <= 1 {
		return 0
	}
	return Shard(Of(key), shards)
}

// Range returns the first and the last slot of a shard.
func Range(shard, shards int) (first, last int) {
	ceil := func(n int) int { return (n*Count + shards - 1) / shards }
	return ceil(shard), ceil(shard+1) - 1
}
