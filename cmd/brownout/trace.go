package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"brownout/internal/run"
	"brownout/internal/trace"
)

type traceOptions struct {
	output  string
	to      string
	median  bool
	pick    trace.Pick
	live    string
	cluster string
}

func traceCommand() *cobra.Command {
	opt := traceOptions{pick: trace.Pick{Op: -1}}
	cmd := &cobra.Command{
		Use:   "trace [RUN]",
		Short: "The life of one request through Raft, stage by stage; and where the time of all went",
		Long: `Tell the life of one request of a recorded run through Raft, stage by stage.

Without flags: where the time of typical operations went, phase by phase, and
the story of the median one. Stages follow each other without gaps from when
an operation was due to when its client had the answer, so they add up.

--live sends one command to a cluster that "brownout up" started, and tells its life.

-o perfetto is for ui.perfetto.dev, -o otlp for OpenTelemetry; --to sends the
latter to a collector, as in http://localhost:4318.`,
		Example: `  brownout trace --slowest 3 --during disk.delay
  brownout trace --live "SET key1 value1"`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("live") {
				if len(args) > 0 || opt.median || opt.pick != (trace.Pick{Op: -1}) {
					return &usageError{errors.New("--live tells of one new command: no run, no choice of operations")}
				}
				return traceLive(cmd.Context(), opt.cluster, opt.live, opt)
			}
			word := "latest"
			if len(args) > 0 {
				word = args[0]
			}
			return traceRun(cmd.Context(), word, opt)
		},
	}
	f := cmd.Flags()
	clusterFlag(cmd, &opt.cluster)
	f.StringVar(&opt.live, "live", "", `send this command to a running cluster and tell its life: "SET key1 value1" (root)`)
	f.StringVarP(&opt.output, "output", "o", "text", "text, json, perfetto or otlp")
	f.StringVar(&opt.to, "to", "", "URL of an OpenTelemetry collector (OTLP/HTTP) to send the stories to")
	f.Int64Var(&opt.pick.Op, "op", -1, "the operation with this number")
	f.IntVar(&opt.pick.Slowest, "slowest", 0, "the so many slowest")
	f.BoolVar(&opt.median, "median", false, "the one with the median response time")
	f.StringVar(&opt.pick.Kind, "kind", "", "of this kind only: put, get, cas, append, delete")
	f.StringVar(&opt.pick.Phase, "during", "", "due in this phase or fault only: baseline, f1, disk.delay")
	return cmd
}

// format is how text and JSON are printed; the other formats are JSON.
func (opt traceOptions) format() (*output, error) {
	if opt.output == "perfetto" || opt.output == "otlp" {
		return newOutput("json")
	}
	return newOutput(opt.output)
}

func traceRun(ctx context.Context, word string, opt traceOptions) error {
	o, err := opt.format()
	if err != nil {
		return err
	}
	dir, err := run.Find(run.StoreDir, word)
	if err != nil {
		return &usageError{err}
	}
	notes, err := trace.Read(os.DirFS(dir))
	if errors.Is(err, trace.ErrNoNotes) {
		return &usageError{fmt.Errorf("%s: %w", dir, err)}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	stories := notes.Select(opt.pick)
	if len(stories) == 0 {
		return &usageError{fmt.Errorf("%s: no operation that was asked for was noted by a node", dir)}
	}
	overview := opt.pick == trace.Pick{Op: -1} && !opt.median && opt.to == ""
	switch {
	case overview && opt.output == "json":
		return o.print(struct {
			Summary []trace.Summary `json:"summary"`
			Median  *trace.Story    `json:"median"`
		}{notes.Summarize(), stories[0]})
	case overview && !o.json:
		if err := trace.SummaryText(o.out, notes.Summarize()); err != nil {
			return err
		}
	}
	return opt.print(ctx, o, dir, notes, stories)
}

// print tells stories in the format that was asked for.
func (opt traceOptions) print(ctx context.Context, o *output, dir string, notes *trace.Notes, stories []*trace.Story) error {
	if opt.to != "" || opt.output == "otlp" {
		started := time.Time{}
		if m, err := run.ReadManifest(os.DirFS(dir)); err == nil {
			started, _ = time.Parse(time.RFC3339, m.Started) // else the traces are in 1970, and still right among themselves
		}
		doc := trace.NewOTLP(filepath.Base(dir), started, stories)
		if opt.to == "" {
			return o.print(doc)
		}
		return send(ctx, o, opt.to, doc)
	}
	switch {
	case opt.output == "perfetto":
		return o.print(trace.NewPerfetto(stories))
	case o.json:
		return o.print(stories)
	}
	for i, s := range stories {
		if i > 0 {
			fmt.Fprintln(o.out)
		}
		if err := notes.Text(o.out, s); err != nil {
			return err
		}
	}
	if n := notes.Lost(); n > 0 {
		fmt.Fprintf(o.talk, "\n%d notes were lost: more came than could be kept\n", n)
	}
	return nil
}

// send posts traces to a collector.
func send(ctx context.Context, o *output, to string, doc trace.OTLP) error {
	body, err := json.Marshal(doc)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, to+"/v1/traces", bytes.NewReader(body))
	if err != nil {
		return &usageError{err}
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return fmt.Errorf("send traces: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		said, _ := io.ReadAll(io.LimitReader(resp.Body, 500))
		return fmt.Errorf("send traces to %s: %s: %s", to, resp.Status, said)
	}
	fmt.Fprintf(o.talk, "%d bytes of traces sent to %s\n", len(body), to)
	return nil
}
