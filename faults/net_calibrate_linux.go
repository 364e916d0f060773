package faults

import (
	"fmt"
	"time"
)

// Doses of the network's calibration.
var (
	delayDoses = append(times("add", 1, 5, 10, 50, 100),
		Dose{"add_ns": int64(20 * time.Millisecond), "jitter_ns": int64(5 * time.Millisecond), "dist": "uniform"},
		Dose{"add_ns": int64(20 * time.Millisecond), "jitter_ns": int64(5 * time.Millisecond), "dist": "normal"},
		Dose{"add_ns": int64(20 * time.Millisecond), "jitter_ns": int64(5 * time.Millisecond), "dist": "pareto"})
	lossDoses = []Dose{
		{"percent": 1.0},
		{"percent": 5.0},
		{"percent": 10.0},
		{"percent": 30.0},
		{"percent": 5.0, "burst": int64(4)},
		{"to_bad": 5.0, "to_good": 50.0},
		{"every": int64(10)},
		{"first": int64(500)},
	}
	partitionDoses = []Dose{{"shape": "one way"}, {"shape": "pair"}, {"shape": "node"}, {"shape": "all"}}
	resetDoses     = times("every", 50, 100, 200, 500)
	halfOpenDoses  = []Dose{{"new": "pass"}, {"new": "pass", "one_way": true}, {"new": "drop"}, {"new": "drop", "one_way": true}}
	floodDoses     = []Dose{flood(10e6, 20), flood(50e6, 20), flood(100e6, 20), flood(50e6, 0), flood(50e6, 100)}
)

func flood(bits int64, udp float64) Dose {
	return Dose{"limit_bits_per_s": bits, "flows": int64(4), "udp": udp}
}

// calibrationLinks are the links on which a dose of the network is calibrated:
// one, unless a partition is to have a shape.
func calibrationLinks(names []string, d Dose) []Link {
	first, last := names[:1], names[len(names)-1:]
	switch d.String("shape") {
	case "pair":
		return appendLinks(appendLinks(nil, first, last), last, first)
	case "node":
		return appendLinks(appendLinks(nil, names, last), last, names)
	case "all":
		return appendLinks(nil, names, names)
	}
	return appendLinks(nil, first, last)
}

// net puts a reading of a fault of the network into a row; off is by how many
// percent one number is off another.
func (r *Row) net(d, v Dose, off func(got, want float64) float64) {
	percent := func(name string) string { return fmt.Sprintf("%.4g%%", v.Float(name)) }
	switch r.Kind {
	case "net.delay":
		want := lawOf(d, 0)(0.5)
		r.Requested = short(d.Duration("add"))
		if d.Duration("jitter") > 0 {
			r.Requested += " ± " + short(d.Duration("jitter")) + " " + d.String("dist")
		}
		r.MeasuredP50, r.MeasuredP99 = short(v.Duration("p50")), short(v.Duration("p99"))
		if sd := v.Duration("sd"); sd > 0 {
			r.Sigma = short(sd)
		}
		r.ErrorPct, r.ErrorNS = off(v.Float("p50_ns"), float64(want)), int64(v.Duration("p50")-want)
	case "net.rate":
		r.Requested, r.MeasuredP50 = rate(d.Float("limit_bits_per_s")), rate(v.Float("bits_per_s"))
		if sd := v.Float("sd_bits_per_s"); sd > 0 {
			r.Sigma = rate(sd)
		}
		r.ErrorPct = off(v.Float("bits_per_s"), d.Float("limit_bits_per_s"))
	case "net.loss", "net.duplicate", "net.reorder", "net.corrupt":
		if d.Float("first") > 0 {
			r.Requested, r.MeasuredP50 = fmt.Sprintf("first %.0f packets", d.Float("first")), fmt.Sprintf("%.0f probes lost", v.Float("hits"))
			return // of which the link's own traffic had the others
		}
		r.Requested, r.MeasuredP50, r.Sigma = percent("expected_percent"), percent("percent"), percent("sigma_percent")
		switch {
		case d.Float("burst") > 0:
			r.Requested += fmt.Sprintf(" in bursts of %.0f", d.Float("burst"))
		case d.Float("to_bad") > 0:
			r.Requested += fmt.Sprintf(" (p %.3g%%, r %.3g%%)", d.Float("to_bad"), d.Float("to_good"))
		case d.Float("every") > 0:
			r.Requested += fmt.Sprintf(" (every %.0fth)", d.Float("every"))
		}
		r.ErrorPct = off(v.Float("percent"), v.Float("expected_percent"))
	case "net.partition":
		r.Requested = fmt.Sprintf("100%% lost, %s (%.0f links)", d.String("shape"), v.Float("links"))
		r.MeasuredP50 = fmt.Sprintf("%.4g%% lost, %.0f of %.0f others passed", v.Float("lost_percent"), v.Float("passed"), v.Float("passed_n"))
		r.ErrorPct = off(v.Float("lost_percent"), 100)
	case "net.reset":
		r.Requested, r.MeasuredP50 = "every "+short(d.Duration("every")), fmt.Sprintf("%.0f resets in %s", v.Float("resets"), short(v.Duration("looked")))
		r.ErrorPct = off(v.Float("looked_ns")/max(v.Float("resets"), 1), d.Float("every_ns"))
	case "net.halfopen":
		r.Requested = "silent, new ones " + d.String("new")
		if d.Bool("one_way") {
			r.Requested += ", one way"
		}
		r.MeasuredP50 = fmt.Sprintf("%.0f of %.0f silent, %.0f of %.0f new", v.Float("silent"), v.Float("n"), v.Float("connects"), v.Float("connects_n"))
		r.ErrorPct = off(v.Float("silent"), v.Float("n"))
	case "net.flood":
		r.Requested = fmt.Sprintf("%s, %.0f%% UDP", rate(d.Float("limit_bits_per_s")), d.Float("udp"))
		r.MeasuredP50 = rate(v.Float("bits_per_s"))
		r.ErrorPct = off(v.Float("bits_per_s"), v.Float("asked_bits_per_s"))
	}
}
