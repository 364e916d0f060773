package main

import (
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"brownout/internal/judge"
	"brownout/internal/report"
	"brownout/internal/run"
)

type checkOptions struct {
	output string
	budget judge.Options
}

func checkCommand() *cobra.Command {
	var opt checkOptions
	cmd := &cobra.Command{
		Use:   "check RUN|HISTORY...",
		Short: "Judge recorded runs again from their files, without root",
		Long: `Judge recorded runs again from their files, without root.

RUN is "latest", "latest~1", an id, a prefix of one, or a path. A file is read
as a history (one operation a line, as in history.jsonl) and only checked for
consistency. Of a run that was killed, what had been recorded is judged.
Nothing is written into the run's directory.`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return check(cmd.Context(), args, opt) },
	}
	cmd.Flags().StringVarP(&opt.output, "output", "o", "text", "text or json (the consistency object)")
	cmd.Flags().DurationVar(&opt.budget.Budget, "budget", 0, "time the checker may take (default 2m)")
	return cmd
}

func check(ctx context.Context, args []string, opt checkOptions) error {
	o, err := newOutput(opt.output)
	if err != nil {
		return err
	}
	codes := make([]int, 0, len(args))
	for _, arg := range args {
		code, err := checkOne(ctx, o, arg, opt)
		if err != nil {
			return &usageError{err}
		}
		codes = append(codes, code)
	}
	if code := worstCode(codes...); code != 0 {
		return &silent{code}
	}
	return nil
}

func checkOne(ctx context.Context, o *output, arg string, opt checkOptions) (int, error) {
	if st, err := os.Stat(arg); err == nil && st.Mode().IsRegular() {
		return checkHistory(ctx, o, arg, opt)
	}
	dir, err := run.Find(run.StoreDir, arg)
	if err != nil {
		return 0, err
	}
	fsys, done, err := recordOf(dir)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	defer done()
	res, err := judge.Judge(ctx, fsys, opt.budget)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", dir, err)
	}
	if o.json {
		return res.ExitCode, o.print(res.Consistency)
	}
	return res.ExitCode, report.Text(o.out, res, o.colour)
}

func checkHistory(ctx context.Context, o *output, path string, opt checkOptions) (int, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	c, err := judge.History(ctx, f, opt.budget)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", path, err)
	}
	code := judge.ConsistencyVerdict(c).ExitCode()
	if o.json {
		return code, o.print(c)
	}
	return code, report.Consistency(o.out, path, c, o.colour)
}

func showCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "show RUN",
		Short: "Print the result of a run as it was judged",
		Args:  usageArgs(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			o, err := newOutput(format)
			if err != nil {
				return err
			}
			dir, err := run.Find(run.StoreDir, args[0])
			if err != nil {
				return &usageError{err}
			}
			res, err := run.ReadResult(os.DirFS(dir))
			if err != nil {
				if errors.Is(err, os.ErrNotExist) {
					err = fmt.Errorf("%s was never judged; brownout check %s does it now", dir, args[0])
				}
				return &usageError{err}
			}
			if o.json {
				return o.print(res)
			}
			return report.Text(o.out, res, o.colour)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json (the whole result)")
	return cmd
}

func lsCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "ls",
		Short: "List the runs here, newest last",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			o, err := newOutput(format)
			if err != nil {
				return err
			}
			return listRuns(o)
		},
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

// runRow is one line of ls.
type runRow struct {
	Run      string `json:"run"`
	Scenario string `json:"scenario"`
	Verdict  string `json:"verdict"` // of run.Verdict, or "not judged"
	Why      string `json:"why"`
}

func listRuns(o *output) error {
	ids, err := run.List(run.StoreDir)
	if err != nil {
		return err
	}
	rows := make([]runRow, 0, len(ids))
	for _, id := range ids {
		row := runRow{Run: id, Verdict: "not judged"}
		if res, err := run.ReadResult(os.DirFS(run.StoreDir + "/" + id)); err == nil {
			row.Scenario, row.Verdict, row.Why = res.Scenario, string(res.Verdict), res.Why
		}
		rows = append(rows, row)
	}
	if o.json {
		return o.print(rows)
	}
	if len(rows) == 0 {
		fmt.Fprintln(o.talk, "no runs in", run.StoreDir, "yet: sudo brownout demo makes one")
	}
	for _, r := range rows {
		fmt.Fprintf(o.out, "%-12s  %s  %s\n", r.Verdict, r.Run, r.Why)
	}
	return nil
}

// usageArgs makes a wrong number of arguments a usage error.
func usageArgs(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if err := check(cmd, args); err != nil {
			return &usageError{fmt.Errorf("%s: %w (see %s --help)", cmd.CommandPath(), err, cmd.CommandPath())}
		}
		return nil
	}
}
