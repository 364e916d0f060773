package faults

// A Row says of one kind of fault what this host can do, or how exactly it did
// it. `brownout doctor` and `brownout calibrate` print rows.
type Row struct {
	Kind        string   `json:"kind"`
	Provider    string   `json:"provider"`
	Requested   string   `json:"requested,omitempty"`
	MeasuredP50 string   `json:"measured_p50,omitempty"`
	MeasuredP99 string   `json:"measured_p99,omitempty"`
	Sigma       string   `json:"sigma,omitempty"` // of what was measured; of a share, its standard error
	N           int      `json:"n,omitempty"`
	ErrorPct    float64  `json:"error_pct,omitempty"`
	Verdict     string   `json:"verdict"` // ok, off, unavailable
	Why         string   `json:"why"`
	Cure        string   `json:"cure,omitempty"`
	Others      []string `json:"other_providers,omitempty"` // that work here as well
}

// Verdicts of a Row.
const (
	RowOK          = "ok"
	RowOff         = "off"         // measured outside the meter's tolerance
	RowUnavailable = "unavailable" // no provider works here
)
