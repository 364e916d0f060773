package plan

// serverKinds are the faults of what a target does inside: its locks and codecs.
var serverKinds = []Kind{
	{
		Name: "lock.hold", Doc: "have a target hold the lock of its state longer, as slow code under a lock does",
		Mechanism: "once in each turn (a run of entries that is applied, or of reads that are answered), when it has the lock, the target's goroutine lets the time pass",
		Probe:     "writes of one client, until they can be read at the node, and reads there; and the target's own account of how long its turns held locks; both must agree",
		Where:     OnNodes, Params: []Param{
			{Name: "add", Type: Duration, Required: true, Min: "200us", Max: "10s", Worse: Higher, Doc: "that a turn holds the lock longer"},
			{Name: "which", Type: Word, Default: "apply", Words: []string{"apply", "read", "both"}, Doc: "turns; readers hold no lock where lock is lockfree-read"},
			{Name: "share", Type: Percent, Default: "100%", Min: "1%", Max: "100%", Doc: "of the turns, evenly"},
			{Name: "busy", Type: Flag, Default: "false", Doc: "the time is computed away (CPU), not slept (as by I/O under a lock)"},
		},
	},
	{
		Name: "lock.convoy", Doc: "background tasks that come for the lock of a target's state together, again and again; requests queue behind them",
		Mechanism: "goroutines of the target take the lock that applying takes, one after the other, and keep it, as a scan would; where lock is sharded, each goes from lock to lock and is as long at all together; where it is lockfree-read, they keep out only who applies",
		Probe:     "writes of one client, until they can be read at the node: those that had to wait for the tasks; and the target's own account of what applying waited for locks; both must agree",
		Where:     OnNodes, Params: []Param{
			{Name: "hold", Type: Duration, Required: true, Min: "1ms", Max: "10s", Worse: Higher, Doc: "that each task keeps the lock"},
			{Name: "period", Type: Duration, Default: "100ms", Min: "5ms", Max: "1m", Doc: "from start to start; all tasks together may take 90% of it"},
			{Name: "contenders", Type: Count, Default: "0", Max: "256", Doc: "tasks that queue behind the first"},
			{Name: "busy", Type: Flag, Default: "false", Doc: "the time is computed away (CPU), not slept"},
		},
	},
	{
		Name: "codec.switch", Doc: "have who leads encode log entries otherwise, or fatter, as a new interface or schema does",
		Mechanism: "from the next entry on the target encodes with another codec, and adds padding and fields to each command; every node decodes that when it applies it",
		Probe:     "entries in the nodes' logs, read from the files on their disks (log: wal): all must take the bytes that their commands take in the form asked for; encoding and decoding times are the target's own account",
		Where:     OnNodes, Params: []Param{
			{Name: "codec", Type: Word, Default: "same", Words: []string{"same", "binary", "protobuf", "json", "xml", "gob", "msgpack", "avro"}, Doc: "of entries"},
			{Name: "bloat", Type: ByteSize, Default: "0B", Max: "1MiB", Worse: Higher, Doc: "padding in each command, beside the configured"},
			{Name: "fields", Type: Count, Default: "0", Max: "1k", Worse: Higher, Doc: "fields of about 40 bytes in each command, beside the configured"},
		},
	},
}
