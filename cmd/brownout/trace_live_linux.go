package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"brownout/internal/history"
	"brownout/internal/run"
	"brownout/internal/trace"
	"brownout/scenarios"
)

// Bounds of a live trace: how long the command may take, and how long the notes of
// nodes that nobody waited for are awaited after it.
const (
	liveWithin  = 30 * time.Second
	notesWithin = 2 * time.Second
	notesEvery  = 20 * time.Millisecond // nodes write them every 50 ms
)

// traceLive sends one command to a running cluster and tells its life.
func traceLive(ctx context.Context, name, command string, opt traceOptions) error {
	o, err := opt.format()
	if err != nil {
		return err
	}
	words, op, err := liveCommand(command)
	if err != nil {
		return &usageError{err}
	}
	if err := needRoot("trace --live"); err != nil {
		return err
	}
	r, err := scenarios.Connect(name)
	if err != nil {
		return &usageError{err}
	}
	info, err := r.Info(ctx)
	if err != nil {
		return err
	}
	inForce, err := r.Faults(ctx)
	if err != nil {
		return err
	}
	var events []run.Event
	for _, f := range inForce {
		events = append(events, run.Event{Fault: f.ID, Kind: f.Kind, Nodes: f.Nodes})
	}
	bounded, cancel := context.WithTimeoutCause(ctx, liveWithin, fmt.Errorf("no answer within %v", liveWithin))
	defer cancel()
	answer, node, err := scenarios.Ask(bounded, info, words)
	if err != nil {
		return err
	}
	if answer.Error {
		return fmt.Errorf("%s answered %s", node, answer.Text)
	}
	fmt.Fprintf(o.talk, "%s: %s\n\n", node, answer.Text)
	op.Node, op.Due, op.Call, op.Return = node, answer.Call, answer.Call, answer.Return
	notes, story, err := awaitNotes(ctx, info.Dir, op, events)
	if err != nil {
		return err
	}
	return opt.print(ctx, o, info.Dir, notes, []*trace.Story{story})
}

// awaitNotes reads the nodes' notes until all of an operation is there, or will not come any more.
func awaitNotes(ctx context.Context, dir string, op history.Op, inForce []run.Event) (*trace.Notes, *trace.Story, error) {
	tick := time.NewTicker(notesEvery)
	defer tick.Stop()
	late := time.After(notesWithin)
	for last := false; ; {
		notes, err := trace.Live(os.DirFS(dir), op, inForce)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", dir, err)
		}
		story := notes.Story(&notes.Ops[0])
		if story.Whole() || last && story != nil {
			return notes, story, nil
		}
		if last {
			return nil, nil, errors.New("no node noted the command: too many others came at the same time")
		}
		select {
		case <-tick.C:
		case <-late:
			last = true
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

// liveCommand understands a command whose life can be told: those of a history.
func liveCommand(text string) (words []string, op history.Op, err error) {
	if words, err = split(text); err != nil {
		return nil, op, err
	}
	forms := map[string]struct {
		kind  history.Kind
		words int
	}{"SET": {history.Put, 3}, "GET": {history.Get, 2}, "DEL": {history.Delete, 2}, "APPEND": {history.Append, 3}, "CAS": {history.CAS, 4}}
	if len(words) > 0 {
		words[0] = strings.ToUpper(words[0])
		if f, ok := forms[words[0]]; ok && len(words) == f.words {
			op = history.Op{Kind: f.kind, Key: words[1], Outcome: history.OK}
			if f.words > 2 {
				op.Value = &words[len(words)-1]
			}
			if f.words > 3 {
				op.Expect = &words[2]
			}
			return words, op, nil
		}
	}
	return nil, op, fmt.Errorf("--live %q: want SET key value, GET key, DEL key, APPEND key value or CAS key old new", text)
}

// split cuts a command at blanks, outside of quotes: 'a b' and "a b" are one word.
func split(text string) (words []string, err error) {
	var word strings.Builder
	in, quote := false, rune(0)
	for _, c := range text {
		switch {
		case quote != 0 && c == quote:
			quote = 0
		case quote == 0 && (c == '\'' || c == '"'):
			quote, in = c, true
		case quote == 0 && (c == ' ' || c == '\t'):
			if in {
				words = append(words, word.String())
				word.Reset()
			}
			in = false
		default:
			word.WriteRune(c)
			in = true
		}
	}
	if quote != 0 {
		return nil, fmt.Errorf("--live %q: a quote is not closed", text)
	}
	if in {
		words = append(words, word.String())
	}
	return words, nil
}
