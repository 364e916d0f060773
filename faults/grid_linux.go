package faults

import (
	"maps"
	"time"
)

// systemGrid is the grid of the faults of the CPU, memory, processes, clocks
// and neighbours.
var systemGrid = map[string]struct {
	hold  time.Duration
	doses []Dose
}{
	"cpu.quota":       {3 * time.Second, []Dose{{"percent": 5.0}, {"percent": 10.0}, {"percent": 20.0}, {"percent": 50.0}, {"percent": 80.0}}},
	"cpu.contend":     {2 * time.Second, []Dose{contention(4, 128), contention(4, 512), contention(4, 1024), contention(4, 4096), contention(1, 16384)}},
	"cpu.steal":       {2 * time.Second, []Dose{{"percent": 10.0}, {"percent": 30.0}, {"percent": 50.0}, {"percent": 70.0}, {"percent": 90.0}}},
	"cpu.pin":         {time.Second, pins()},
	"memory.limit":    {1500 * time.Millisecond, sizes("limit", 64, 96, 128, 192, 256)},
	"memory.pressure": {2 * time.Second, sizes("limit", 8, 16, 32, 64, 96)},
	"memory.oom":      {1500 * time.Millisecond, times("restart", 300, 400, 500, 750, 1000)},
	"memory.stall":    {2 * time.Second, times("length", 50, 100, 200, 300, 500)},
	"gc.pause":        {2 * time.Second, times("length", 20, 50, 100, 200, 500)},
	"process.pause":   {2 * time.Second, times("length", 20, 50, 100, 200, 500)},
	"gc.storm":        {2 * time.Second, storms(8, 16, 32, 64, 128)},
	"process.term":    {1500 * time.Millisecond, times("restart", 300, 400, 500, 750, 1000)},
	"process.restart": {2500 * time.Millisecond, []Dose{
		{"data": "same", "down_ns": int64(300 * time.Millisecond)},
		{"data": "same", "down_ns": int64(500 * time.Millisecond)},
		{"data": "lost", "down_ns": int64(500 * time.Millisecond)},
		{"data": "older", "age_ns": int64(200 * time.Millisecond), "down_ns": int64(500 * time.Millisecond)},
		{"data": "same", "down_ns": int64(time.Second)},
	}},
	"process.kill":      {1500 * time.Millisecond, times("restart", 300, 400, 500, 750, 1000)},
	"process.crashloop": {3 * time.Second, times("every", 200, 300, 500, 750, 1000)},
	"neighbour.noisy": {2 * time.Second, []Dose{
		{"cpu": 20.0},
		{"cpu": 50.0},
		{"memory_bytes": int64(64 << 20)},
		{"net_bits_per_s": int64(20e6)},
		{"disk_bytes_per_s": int64(8 << 20)},
		{"cpu": 50.0, "memory_bytes": int64(32 << 20), "net_bits_per_s": int64(10e6), "disk_bytes_per_s": int64(4 << 20)},
	}},
	"lock.hold":   {1500 * time.Millisecond, append(times("add", 1, 2, 5, 20, 100), Dose{"add_ns": int64(5 * time.Millisecond), "which": "read"}, Dose{"add_ns": int64(5 * time.Millisecond), "busy": true})},
	"lock.convoy": {2 * time.Second, []Dose{convoys(5, 0), convoys(5, 3), convoys(10, 0), convoys(20, 1), convoys(80, 0)}},
	"codec.switch": {time.Second, []Dose{
		{"codec": "protobuf"},
		{"codec": "json"},
		{"codec": "xml"},
		{"codec": "gob"},
		{"codec": "msgpack"},
		{"codec": "avro"},
		{"bloat_bytes": int64(256)},
		{"bloat_bytes": int64(4 << 10)},
		{"bloat_bytes": int64(64 << 10)},
		{"fields": int64(20)},
		{"codec": "xml", "bloat_bytes": int64(4 << 10), "fields": int64(20)},
	}},
	"clock.offset": {500 * time.Millisecond, times("add", 10, 1000, 60_000, 3_600_000, 86_400_000)},
	"clock.skew": {time.Second, append(times("add", 10, 1000, 60_000, 3_600_000, 86_400_000),
		Dose{"rate": 0.5}, Dose{"rate": 1.0}, Dose{"rate": 10.0}, Dose{"rate": 10.0, "direction": "back"}, Dose{"rate": 50.0})},
}

func init() { maps.Copy(grid, systemGrid) }
