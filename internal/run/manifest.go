package run

// ManifestSchema is the version of manifest.json.
const ManifestSchema = "brownout.manifest/1"

// A Manifest says under which conditions a run was made.
type Manifest struct {
	Schema     string              `json:"schema"`
	Run        string              `json:"run"`
	Started    string              `json:"started"` // RFC 3339, wall clock
	Scenario   string              `json:"scenario"`
	Hash       string              `json:"scenario_hash"`
	Seed       uint64              `json:"seed"`
	Argv       []string            `json:"argv"`
	Version    string              `json:"version"`
	Go         string              `json:"go"`
	Modules    map[string]string   `json:"modules"`  // path → version
	Binaries   map[string]string   `json:"binaries"` // name → sha256
	Host       Host                `json:"host"`
	Network    Network             `json:"network"`
	Providers  map[string]Provider `json:"providers"` // fault id → what was chosen and who was refused
	Sysctls    map[string]string   `json:"sysctls"`
	Mechanisms map[string]string   `json:"mechanisms"` // what the cluster uses: cgroup mode, disk, uid, scheduling of the wire, ...
}

// Host describes the machine.
type Host struct {
	Kernel      string   `json:"kernel"`
	OS          string   `json:"os"`
	Arch        string   `json:"arch"`
	CPUModel    string   `json:"cpu_model"`
	CPUs        int      `json:"cpus"`
	MemoryBytes int64    `json:"memory_bytes"`
	Clocksource string   `json:"clocksource"`
	CgroupMode  string   `json:"cgroup_mode"` // v1, v2, hybrid
	Controllers []string `json:"controllers"` // "cpu:v1", ...
	Filesystem  string   `json:"filesystem"`  // of the run's directory
}

// Network describes the healthy links between nodes and clients.
type Network struct {
	Profile    string            `json:"profile,omitempty"`
	Delay      int64             `json:"delay_ns"` // one way, added to the bare bridge
	Jitter     int64             `json:"jitter_ns"`
	Rate       int64             `json:"rate_bits_per_s,omitempty"` // absent: not limited
	Queue      int64             `json:"queue_bytes,omitempty"`
	MTU        int               `json:"mtu"`
	Congestion string            `json:"congestion"` // control of TCP in force
	Offloads   map[string]bool   `json:"offloads"`
	TCP        map[string]string `json:"tcp"` // settings of the nodes' namespaces, net.ipv4.*
}

// Provider is the mechanism chosen for a fault.
type Provider struct {
	Name    string            `json:"name"`
	Refused map[string]string `json:"refused,omitempty"` // name → why
}
