package cgroup

import (
	"fmt"
	"math"
	"time"
)

// Limits of the kernel's CPU bandwidth controller (kernel/sched/core.c,
// min_cfs_quota_period and max_cfs_quota_period; measured to be exact).
const (
	MinPeriod = time.Millisecond
	MaxPeriod = time.Second
	MinQuota  = time.Millisecond // of CPU time a period

	// FairQuota is the least quota a period that throttles evenly: one bandwidth
	// slice. With less, a task overruns by up to a timer tick and repays it over
	// several periods, in gaps far longer than the period.
	FairQuota = 5 * time.Millisecond

	DefaultPeriod = 100 * time.Millisecond // the kernel's own
)

// A Quota is CPU time granted in each period.
type Quota struct {
	Quota  time.Duration // negative: no limit
	Period time.Duration
}

// Percent of one CPU that q grants; +Inf without a limit.
func (q Quota) Percent() float64 {
	if q.Quota < 0 || q.Period <= 0 {
		return math.Inf(1)
	}
	return 100 * float64(q.Quota) / float64(q.Period)
}

func (q Quota) String() string {
	if q.Quota < 0 {
		return "no limit"
	}
	return fmt.Sprintf("%v in each %v (%.4g%% of one CPU)", q.Quota, q.Period, q.Percent())
}

// QuotaFor returns the quota that grants percent of one CPU in each period, in
// whole microseconds, or says why the kernel would refuse it.
func QuotaFor(percent float64, period time.Duration) (Quota, error) {
	if math.IsNaN(percent) || percent <= 0 || percent > 100*8192 {
		return Quota{}, fmt.Errorf("cpu quota of %v%%: not in 0..819200%%", percent)
	}
	if period < MinPeriod || period > MaxPeriod {
		return Quota{}, fmt.Errorf("cpu quota period %v: the kernel takes %v to %v", period, MinPeriod, MaxPeriod)
	}
	period = period.Round(time.Microsecond)
	quota := time.Duration(math.Round(float64(period.Microseconds())*percent/100)) * time.Microsecond
	if quota < MinQuota {
		return Quota{}, fmt.Errorf("cpu quota of %v%% of %v is %v: the kernel takes %v or more; with this period %.4g%% or more, or with %v%% a period of %v or more",
			percent, period, quota, MinQuota, 100*float64(MinQuota)/float64(period), percent, minPeriod(percent, MinQuota))
	}
	return Quota{Quota: quota, Period: period}, nil
}

// Fair says whether throttling by q comes in even portions; if not, why and
// from what period on. See [FairQuota].
func (q Quota) Fair() (bool, string) {
	if q.Quota < 0 || q.Quota >= FairQuota {
		return true, ""
	}
	return false, fmt.Sprintf("a quota of %v a period is less than one bandwidth slice of %v: stalls will be far longer than the period; use a period of %v or more",
		q.Quota, FairQuota, minPeriod(q.Percent(), FairQuota))
}

// minPeriod is the shortest period in which percent is at least quota.
func minPeriod(percent float64, quota time.Duration) time.Duration {
	return time.Duration(math.Ceil(float64(quota.Microseconds())*100/percent)) * time.Microsecond
}
