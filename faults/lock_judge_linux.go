package faults

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"brownout/kvserver"
)

// Tolerances of held locks. The account is exact where the host has CPUs to
// spare. A client waits for its own turn and, among others, for theirs: at
// least one hold, and a few at most.
const (
	holdEarlyShare = 0.1
	holdEarlyLeast = 60 * time.Microsecond
	holdLateShare  = 0.25
	holdLateLeast  = time.Millisecond
	waitEarlyShare = 0.25
	waitEarlyLeast = 150 * time.Microsecond
	waitMost       = 4 // holds, and
	waitMostLeast  = 30 * time.Millisecond
)

// A holdJudge judges lock.hold.
type holdJudge struct{ ask kvserver.LockHold }

func meterHold(b *bench, site Site, d Dose) (Meter, error) {
	r, err := holdOf(d)
	if err != nil {
		return nil, err
	}
	return newLockMeter(b, site, 4*time.Millisecond, holdJudge{r.Holds[0]})
}

func (j holdJudge) judge(was, is lockLook, values map[string]any) (why, bad string) {
	var whys, bads []string
	for _, side := range []struct {
		which, requests string
		was, is         []time.Duration
		before, now     kvserver.Latency
	}{
		{"apply", "write", was.writes, is.writes, was.locks.ApplyHold, is.locks.ApplyHold},
		{"read", "read", was.reads, is.reads, was.locks.ReadHold, is.locks.ReadHold},
	} {
		if j.ask.Which != side.which && j.ask.Which != "both" {
			continue
		}
		// Of those that are held, if not all are, the median is compared.
		q := 1 - j.ask.Share/200
		outside := quantile(side.is, q) - quantile(side.was, q)
		inside := mean(side.now) - mean(side.before)
		values["p50_ns"], values["hold_ns"], values["n"], values["turns"] = int64(outside), int64(inside), len(side.is), side.now.Count
		whys = append(whys, fmt.Sprintf("a %s takes %s longer (p%g, n=%d), a turn of it holds the lock %s longer by the target's account (mean, n=%d)",
			side.requests, short(outside), 100*q, len(side.is), short(inside), side.now.Count))
		if b := j.compare(outside, inside, len(side.is)); b != "" {
			bads = append(bads, side.requests+"s: "+b)
		}
	}
	return strings.Join(whys, ", "), strings.Join(bads, ", ")
}

// compare says what is wrong with what was seen of n requests.
func (j holdJudge) compare(outside, inside time.Duration, n int) string {
	add := time.Duration(j.ask.AddNS)
	wait, most := tolerance(add, waitEarlyShare, waitEarlyLeast), waitMost*add+waitMostLeast
	want := time.Duration(float64(add) * j.ask.Share / 100)
	early, late := tolerance(want, holdEarlyShare, holdEarlyLeast), tolerance(want, holdLateShare, holdLateLeast)
	switch {
	case n == 0:
		return fmt.Sprintf("%s asked, and no request came to an end", short(add))
	case outside < add-wait || outside > most:
		return fmt.Sprintf("%s asked, a client waits for %s, tolerance -%s to %s", short(add), short(outside), short(wait), short(most))
	case inside < want-early || inside > want+late:
		return fmt.Sprintf("%s asked (mean), the target's account says %s, tolerance -%s +%s", short(want), short(inside), short(early), short(late))
	}
	return ""
}

func (j holdJudge) healed(was, is lockLook) string {
	add := time.Duration(j.ask.AddNS)
	limit := max(add/2, 5*time.Millisecond)
	inside := mean(is.locks.ApplyHold) - mean(was.locks.ApplyHold)
	outside := quantile(is.writes, 0.5) - quantile(was.writes, 0.5)
	if j.ask.Which != "apply" {
		inside = max(inside, mean(is.locks.ReadHold)-mean(was.locks.ReadHold))
		outside = max(outside, quantile(is.reads, 0.5)-quantile(was.reads, 0.5))
	}
	if want := time.Duration(float64(add) * j.ask.Share / 100); inside > max(want/2, holdLateLeast/10) {
		return fmt.Sprintf("locks are still held for %s longer", short(inside))
	}
	if outside > limit {
		return fmt.Sprintf("requests still take %s longer, more than %s", short(outside), short(limit))
	}
	return ""
}

// convoyPause is between two requests of a probe that looks for convoys.
const convoyPause = time.Millisecond

// Tolerances of convoys.
const (
	convoyEarlyShare = 0.35
	convoyEarlyLeast = 4 * time.Millisecond
	convoyLateShare  = 0.4
	convoyLateLeast  = 20 * time.Millisecond
)

// A convoyJudge judges lock.convoy.
type convoyJudge struct{ ask kvserver.LockConvoy }

func meterConvoy(b *bench, site Site, d Dose) (Meter, error) {
	r, err := convoyOf(d)
	if err != nil {
		return nil, err
	}
	return newLockMeter(b, site, convoyPause, convoyJudge{r.Convoys[0]})
}

// length is how long all tasks together keep who applies out.
func (j convoyJudge) length(l kvserver.Locks) time.Duration {
	return time.Duration(j.ask.HoldNS*(1+j.ask.Contenders)) / time.Duration(max(l.Shards, 1))
}

func (j convoyJudge) judge(was, is lockLook, values map[string]any) (why, bad string) {
	want := j.length(is.locks)
	rounds := int(is.looked/time.Duration(j.ask.PeriodNS)) + 1
	usual := quantile(was.writes, 0.5)
	held := j.held(is.writes, usual, want, rounds)
	got := quantile(held, 0.5) + missed(usual, want)
	// All that applying waited for, by round: the tasks keep it out for so long at most.
	inside := time.Duration(is.locks.ApplyWait.SumNS-mean(was.locks.ApplyWait).Nanoseconds()*is.locks.ApplyWait.Count) / time.Duration(rounds)
	values["asked_ns"], values["p50_ns"], values["max_ns"], values["n"] = int64(want), int64(got), int64(quantile(held, 1)), len(held)
	values["wait_ns"], values["read_max_ns"] = int64(inside), int64(quantile(is.reads, 1))
	why = fmt.Sprintf("%d writes waited, for %s (p50, with what was over when they came) of %s in each of %d periods; applying waited for locks for %s in a period, by the target's account",
		len(held), short(got), short(want), rounds, short(inside))
	early, late := tolerance(want, convoyEarlyShare, convoyEarlyLeast), tolerance(want, convoyLateShare, convoyLateLeast)
	least := want / 3
	if shards := time.Duration(is.locks.Shards); shards > 1 {
		// Who applies may meet the tasks in one shard after the other, for as long
		// as they take through all, or just leave a shard when it comes.
		late += time.Duration(j.ask.HoldNS) * (shards - 1) / shards
		least = want / 8
	}
	switch {
	case len(held) < max(1, (rounds-1)/2):
		bad = fmt.Sprintf("%d writes waited for half of %s or more, in %d periods", len(held), short(want), rounds)
	case got < want-early || got > want+late:
		bad = fmt.Sprintf("%s asked, a client waits for %s, tolerance -%s +%s", short(want), short(got), short(early), short(late))
	case inside < least:
		bad = fmt.Sprintf("%s asked, applying waited for locks for %s in a period by the target's account", short(want), short(inside))
	}
	return why, bad
}

// missed is how much of a convoy a probe has missed that waits for it: half of
// the time from one of its requests to the next, as the convoy begins at any moment
// in between. One as short as that is not seen by its length.
func missed(usual, want time.Duration) time.Duration { return min(usual+convoyPause, want/2) / 2 }

// held are the requests that waited for half of the tasks or more, longest
// first, less what is usual: one for each round at most.
func (j convoyJudge) held(writes []time.Duration, usual, want time.Duration, rounds int) (out []time.Duration) {
	for _, w := range writes {
		if w-usual >= want/2 {
			out = append(out, w-usual)
		}
	}
	slices.SortFunc(out, func(a, b time.Duration) int { return int(b - a) })
	return out[:min(len(out), rounds)]
}

func (j convoyJudge) healed(was, is lockLook) string {
	want, usual := j.length(is.locks), quantile(was.writes, 0.5)
	rounds := int(is.looked/time.Duration(j.ask.PeriodNS)) + 1
	held := j.held(is.writes, usual, want, rounds)
	inside := time.Duration(is.locks.ApplyWait.SumNS) / time.Duration(rounds)
	if len(held) > rounds/2 && inside > want/3 {
		return fmt.Sprintf("%d writes still waited for %s, applying %s in a period for locks", len(held), short(quantile(held, 0.5)), short(inside))
	}
	return ""
}
