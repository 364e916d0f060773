package faults

import (
	"fmt"
	"time"
)

// counts are doses of one whole number; of a disk, for all its operations.
func counts(name string, ns ...int64) (out []Dose) {
	for _, n := range ns {
		out = append(out, Dose{name: n, "op": "all"})
	}
	return out
}

func percents(ps ...float64) (out []Dose) {
	for _, p := range ps {
		out = append(out, Dose{"percent": p})
	}
	return out
}

func diskErrors(ps ...float64) []Dose {
	out := percents(ps...)
	for _, d := range out {
		d["op"], d["errno"] = "fsync", "EIO"
	}
	return out
}

func torn(ps ...float64) (out []Dose) {
	for _, p := range ps {
		out = append(out, Dose{"prefix": p, "restart_ns": int64(200 * time.Millisecond)})
	}
	return out
}

// disk puts a reading of a disk's fault into a row; off is by how many percent
// one number is off another.
func (r *Row) disk(d, v Dose, off func(got, want float64) float64) {
	switch r.Kind {
	case "disk.hang":
		r.Requested, r.MeasuredP50 = "no "+d.String("op")+" returns", fmt.Sprintf("%.0f returned, one on for %s", v.Float("returned"), short(v.Duration("on")))
		r.ErrorPct = 100 * v.Float("returned")
	case "disk.rate":
		r.Requested, r.MeasuredP50 = bytesPerSecond(d.Float("limit_bytes_per_s")), bytesPerSecond(v.Float("bytes_per_s"))
		r.ErrorPct = off(v.Float("bytes_per_s"), d.Float("limit_bytes_per_s"))
	case "disk.iops":
		r.Requested, r.MeasuredP50 = fmt.Sprintf("%.4g ops/s", d.Float("limit")), fmt.Sprintf("%.4g ops/s", v.Float("ops_per_s"))
		r.ErrorPct = off(v.Float("ops_per_s"), d.Float("limit"))
	case "disk.full":
		r.Requested, r.MeasuredP50 = fmt.Sprintf("ENOSPC after %.0f bytes", d.Float("free_bytes")), fmt.Sprintf("%.4g%% ENOSPC from then on", v.Float("percent"))
		r.ErrorPct = off(v.Float("percent"), 100)
	case "power.loss":
		r.Requested, r.MeasuredP50 = "only what was fsynced", fmt.Sprintf("%.0f fsynced lost, %.0f others kept", v.Float("synced_lost_bytes"), v.Float("unsynced_kept_bytes"))
		r.ErrorPct = 100 * (v.Float("synced_lost_bytes") + v.Float("unsynced_kept_bytes"))
	case "disk.torn":
		r.Requested, r.MeasuredP50 = fmt.Sprintf("%.4g%% of a write", d.Float("prefix")), fmt.Sprintf("%.4g%%, in sectors", v.Float("percent"))
		r.ErrorPct = v.Float("percent") - v.Float("asked_percent")
	case "disk.contend":
		r.Requested, r.MeasuredP50 = fmt.Sprintf("%.4g/s", d.Float("rate")), fmt.Sprintf("%.4g/s", v.Float("per_s"))
		r.ErrorPct = off(v.Float("per_s"), d.Float("rate"))
	default:
		r.Requested, r.MeasuredP50 = fmt.Sprintf("%.4g%%", d.Float("percent")), fmt.Sprintf("%.4g%%", v.Float("percent"))
		r.ErrorPct = off(v.Float("percent"), d.Float("percent"))
	}
}
