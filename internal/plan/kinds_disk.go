package plan

// diskKinds are the faults of storage.
var diskKinds = []Kind{
	{
		Name: "disk.delay", Doc: "make a node's file operations slow",
		Mechanism: "slowfs, a FUSE file system over the node's data, served inside the node's mount namespace",
		Probe:     "the same operation on a small file beside the node's data, from outside the node's program",
		Where:     OnNodes, Params: []Param{
			{Name: "op", Type: Word, Default: "fsync", Words: []string{"fsync", "write", "read", "open", "rename", "all"}, Doc: "class of operation; fsync includes fdatasync"},
			{Name: "add", Type: Duration, Required: true, Min: "100us", Max: "60s", Worse: Higher, Doc: "added to each operation"},
		},
	},
}
