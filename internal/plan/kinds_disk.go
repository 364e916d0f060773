package plan

const (
	slowfs    = "slowfs, a FUSE file system over the node's data, served inside the node's mount namespace"
	orTrap    = "; or `provider: seccomp`, a trap at the target's own system calls, for targets on their plain disk"
	orDelay   = "; or `provider: dm-delay`, the device mapper below a file system of the node's own: fsync or read, whole milliseconds, late by up to a tick of the kernel, or an eighth beyond 63 ticks"
	orFlakey  = "; or `provider: dm-flakey`, the device mapper: all writes of the node's device fail with EIO, which fsync tells"
	orBlock   = "; or `provider: io.max` (cgroup v2) or `blkio.throttle` (v1) on an ext4 of the node's own on a loop device, op: read or write: what its processes ask of the device themselves, in lumps of a tenth of a second. On v1 that is direct I/O and what their own fsync writes back, not what the kernel writes back later"
	diskProbe = "on a small file beside the node's data, from outside the node's program"
)

// Classes of file operations.
var diskOps = []string{"fsync", "write", "read", "open", "rename", "all"}

// diskKinds are the faults of storage.
var diskKinds = []Kind{
	{
		Name: "disk.delay", Doc: "make a node's file operations slow",
		Mechanism: slowfs + orTrap + orDelay,
		Probe:     "the same operation " + diskProbe,
		Where:     OnNodes, OneOf: []string{"add", "trace"}, Params: []Param{
			{Name: "op", Type: Word, Default: "fsync", Words: diskOps, Doc: "class of operation; fsync includes fdatasync"},
			{Name: "add", Type: Duration, Min: "100us", Max: "60s", Worse: Higher, Doc: "added to each operation"},
			{Name: "jitter", Type: Duration, Max: "60s", Worse: Higher, Doc: "spread around add, see dist"},
			{Name: "dist", Type: Word, Default: "uniform", Words: []string{"uniform", "normal", "pareto"}, Doc: "distribution of the jitter"},
			{Name: "trace", Type: Durations, Max: "60s", Doc: "recorded delays in place of add, one operation after the other, over and over; @FILE reads them"},
		},
	},
	{
		Name: "disk.hang", Doc: "a node's file operations begin and do not return",
		Mechanism: slowfs + orTrap,
		Probe:     "an operation " + diskProbe + " that does not return, while another class's, or one on the disk below, do",
		Where:     OnNodes, Params: []Param{
			{Name: "op", Type: Word, Default: "fsync", Words: diskOps, Doc: "class of operation; fsync includes fdatasync"},
			{Name: "each", Type: Duration, Min: "10ms", Max: "60s", Doc: "an operation hangs so long; until the fault ends if absent"},
		},
	},
	{
		Name: "disk.rate", Doc: "cap the bytes that a node reads and writes per second",
		Mechanism: slowfs + ": an operation waits until those before it would be over at the limit" + orBlock,
		Probe:     "trains of operations " + diskProbe + ": bytes a second; below a block provider, of a process in the node's cgroup, past the cache",
		Where:     OnNodes, Params: []Param{
			{Name: "limit", Type: ByteRate, Required: true, Min: "4KiB/s", Max: "1GiB/s", Worse: Lower, Doc: "bytes per second"},
			{Name: "op", Type: Word, Default: "all", Words: []string{"read", "write", "all"}, Doc: "what counts; all is both together"},
		},
	},
	{
		Name: "disk.iops", Doc: "cap a node's file operations per second",
		Mechanism: slowfs + ": an operation waits until those before it would be over at the limit" + orBlock,
		Probe:     "trains of operations " + diskProbe + ": operations a second; below a block provider, of a process in the node's cgroup, past the cache",
		Where:     OnNodes, Params: []Param{
			{Name: "limit", Type: Count, Required: true, Min: "1", Max: "10k", Worse: Lower, Doc: "operations per second"},
			{Name: "op", Type: Word, Default: "all", Words: []string{"fsync", "write", "read", "all"}, Doc: "what counts; all is all classes together"},
		},
	},
	{
		Name: "disk.error", Doc: "a node's file operations fail",
		Mechanism: slowfs + orTrap + "; the operation is not done" + orFlakey,
		Probe:     "the share of such operations that fail with this error, " + diskProbe,
		Where:     OnNodes, OneOf: []string{"percent", "after"}, Params: []Param{
			{Name: "op", Type: Word, Default: "fsync", Words: diskOps, Doc: "class of operation; fsync includes fdatasync"},
			{Name: "errno", Type: Word, Default: "EIO", Words: []string{"EIO", "ENOSPC", "EROFS"}, Doc: "the error"},
			{Name: "percent", Type: Percent, Min: "1%", Max: "100%", Worse: Higher, Doc: "probability of each operation"},
			{Name: "after", Type: Count, Min: "0", Max: "1M", Doc: "so many operations go well, all later ones fail; the probe's count, too"},
		},
	},
	{
		Name: "disk.full", Doc: "a node's disk is full: what makes a file longer fails with ENOSPC",
		Mechanism: slowfs,
		Probe:     "appending to a small file beside the node's data, from outside the node's program; and what statfs says",
		Where:     OnNodes, Params: []Param{
			{Name: "free", Type: ByteSize, Default: "0B", Max: "1TiB", Doc: "what can still be written; the probe's bytes count, too"},
		},
	},
	{
		Name: "disk.torn", Doc: "power fails in the middle of a write: of a file's last write that was not fsynced a prefix survives, of those before all",
		Mechanism: slowfs + ", and its log of what to undo; the node is killed and its disk mounted again",
		Probe:     "a file of known bytes beside the node's data, read back",
		Where:     OnNodes, Instant: true, Params: []Param{
			{Name: "prefix", Type: Percent, Default: "50%", Min: "0%", Max: "99%", Doc: "of the last write that survives, in whole sectors of 512 bytes"},
			{Name: "restart", Type: Duration, Max: "10m", Doc: "after this time; at the end of the fault if absent"},
		},
	},
	{
		Name: "disk.corrupt", Doc: "bits of what a node reads are flipped; what is on the disk stays",
		Mechanism: slowfs + "; what the node's kernel had cached is dropped, so that it is read again",
		Probe:     "a file of known bytes beside the node's data, read again and again past the cache",
		Where:     OnNodes, Params: []Param{
			{Name: "percent", Type: Percent, Required: true, Min: "1%", Max: "100%", Worse: Higher, Doc: "probability of each read from the disk"},
			{Name: "bits", Type: Count, Default: "1", Min: "1", Max: "1k", Doc: "flipped in such a read, anywhere in it"},
		},
	},
	{
		Name: "power.loss", Doc: "a node loses power: it is killed, and all that it had not fsynced is lost",
		Mechanism: slowfs + ", and its log of what to undo (fuse); or the shutdown of an ext4 of the node's own on a loop device (ext4). Both mount the disk again",
		Probe:     "files beside the node's data whose fsynced bytes must be there, and the others not (by ext4, those may that the kernel wrote back by itself)",
		Where:     OnNodes, Instant: true, Params: []Param{
			{Name: "restart", Type: Duration, Max: "10m", Doc: "after this time; at the end of the fault if absent"},
		},
	},
	{
		Name: "disk.contend", Doc: "a neighbour writes to and fsyncs the device below the node's disk",
		Mechanism: "a process in a cgroup of its own, with files of its own on the file system of the node's data",
		Probe:     "the kernel's account of what the neighbour wrote; and the latency of fsync on that device before and meanwhile",
		Where:     OnNodes, Params: []Param{
			{Name: "rate", Type: Count, Required: true, Min: "1", Max: "100k", Worse: Higher, Doc: "writes with fsync per second, if the device can"},
			{Name: "size", Type: ByteSize, Default: "64KiB", Min: "4KiB", Max: "16MiB", Doc: "of each write"},
			{Name: "workers", Type: Count, Default: "4", Min: "1", Max: "64", Doc: "that many at a time"},
		},
	},
}
