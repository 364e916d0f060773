package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"
)

type upOptions struct {
	output     string
	nodes      int
	nodesSet   bool
	set        []string
	out        string
	foreground bool
	wait       time.Duration
}

func upCommand() *cobra.Command {
	var opt upOptions
	cmd := &cobra.Command{
		Use:   "up [FILE|NAME]",
		Short: "Start a cluster and leave it running (root)",
		Long: `Start the cluster of a scenario, or three nodes of kvserver, without a workload.
It runs in the background until "brownout down". Look inside with
"brownout enter n1", reach it as its clients do with
"brownout enter client -- redis-cli -h n1", hurt it with "brownout fault add".`,
		Args: usageArgs(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			file := ""
			opt.nodesSet = cmd.Flags().Changed("nodes")
			if len(args) == 1 {
				file = args[0]
			}
			return up(cmd.Context(), file, opt)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&opt.output, "output", "o", "text", "text or json")
	f.IntVar(&opt.nodes, "nodes", 0, "number of nodes (default 3, or the scenario's)")
	f.StringArrayVar(&opt.set, "set", nil, "override a field of the scenario: PATH=VALUE")
	f.StringVar(&opt.out, "out", "", "directory for logs and data; default runs/ID")
	f.BoolVar(&opt.foreground, "foreground", false, "stay in the foreground; ends with Ctrl-C")
	f.DurationVar(&opt.wait, "wait", 30*time.Second, "how long the nodes may take to become ready")
	return cmd
}

// clusterFlag names one of several running clusters.
func clusterFlag(cmd *cobra.Command, name *string) {
	cmd.Flags().StringVarP(name, "cluster", "c", "", "which cluster, by its run id (needed only when several are up)")
}

func downCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "down",
		Short: "Stop a cluster that up started (root)",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return down(cmd.Context(), name) },
	}
	clusterFlag(cmd, &name)
	return cmd
}

func enterCommand() *cobra.Command {
	var name string
	cmd := &cobra.Command{
		Use:   "enter NODE|client [-- COMMAND...]",
		Short: "Run a shell or a command inside a node's namespaces (root)",
		Long: `Run a shell or a command inside a node's namespaces. NODE is n1, n2, ... or
"client", the network namespace from which clients talk to the cluster.
The command's exit code is passed on.`,
		Example: "  brownout enter client -- redis-cli -h n1 set k v\n  brownout enter n2 -- ss -ti",
		Args:    usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return enter(cmd.Context(), name, args[0], args[1:])
		},
	}
	clusterFlag(cmd, &name)
	return cmd
}

func faultCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "fault", Short: "Add, list and remove faults of a running cluster (root)"}
	var name, format string
	add := &cobra.Command{
		Use:   "add KIND NAME=VALUE...",
		Short: "Apply a fault until it is removed, or for=TIME",
		Example: `  brownout fault add net.delay from=leader to=followers add=5ms
  brownout fault add disk.delay on=n2 op=fsync add=20ms for=30s`,
		Args: usageArgs(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			return faultAdd(cmd.Context(), name, args[0], args[1:])
		},
	}
	ls := &cobra.Command{
		Use: "ls", Short: "List the faults in force", Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return faultList(cmd.Context(), name, format) },
	}
	ls.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	rm := &cobra.Command{
		Use: "rm ID", Short: "Heal a fault", Args: usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error { return faultRemove(cmd.Context(), name, args[0]) },
	}
	for _, sub := range []*cobra.Command{add, ls, rm} {
		clusterFlag(sub, &name)
		cmd.AddCommand(sub)
	}
	return cmd
}

func cleanCommand() *cobra.Command {
	var format string
	var dry, all bool
	cmd := &cobra.Command{
		Use:   "clean",
		Short: "Undo what a dead run left behind on this host (root)",
		Args:  usageArgs(cobra.NoArgs),
		RunE:  func(cmd *cobra.Command, _ []string) error { return clean(cmd.Context(), format, dry, all) },
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	cmd.Flags().BoolVarP(&dry, "dry-run", "n", false, "only say what would be undone")
	cmd.Flags().BoolVar(&all, "all", false, "also what belongs to runs that are still alive")
	return cmd
}

func doctorCommand() *cobra.Command {
	var format string
	measure := true
	cmd := &cobra.Command{
		Use:   "doctor",
		Short: "Say what this host can do: every fault, its provider, the cure for each gap",
		Long: `Say what this host can do: every fault, the provider that would be chosen and the
others that work, the reason and the cure for what is missing, and how noisy the host is.

Some kinds that stand for their mechanisms are injected for a moment on a small
cluster of its own and measured, which takes ten seconds; "brownout calibrate" does that
for all kinds and many doses. ~ marks what was measured beyond its tolerance just now.`,
		Args: usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return doctor(cmd.Context(), format, measure) },
	}
	cmd.Flags().BoolVar(&measure, "measure", true, "inject and measure some kinds; --measure=false only looks")
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text or json")
	return cmd
}

func calibrateCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use:   "calibrate [FAMILY...|all]",
		Short: "Inject each fault at several doses and print requested and measured (root)",
		Long: `Inject each fault at several doses on a cluster of its own and print what was
asked for and what was measured. A family takes up to four minutes, all of them some
ten; doctor takes a look of ten seconds. docs/CALIBRATION.md is what -o md prints.`,
		RunE: func(cmd *cobra.Command, args []string) error { return calibrate(cmd.Context(), args, format) },
	}
	cmd.Flags().StringVarP(&format, "output", "o", "text", "text, json or md")
	return cmd
}

func demoCommand() *cobra.Command {
	var opt runOptions
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "The guided run: what to expect, what happens, what it means (root)",
		Args:  usageArgs(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			opt.given(cmd)
			return demo(cmd.Context(), opt)
		},
	}
	runFlags(cmd, &opt)
	return cmd
}

// demo is a run with a guide: what to expect before, what to do next after.
func demo(ctx context.Context, opt runOptions) error {
	o, err := newOutput(opt.output)
	if err != nil {
		return err
	}
	if !opt.dryRun {
		fmt.Fprint(o.talk, demoIntro)
	}
	err = runScenarios(ctx, []string{"quickstart"}, opt)
	if s, judged := errors.AsType[*silent](err); !opt.dryRun && (err == nil || judged && s.code != exitUnsupported) {
		fmt.Fprint(o.talk, demoNext)
	}
	return err
}

const demoIntro = `A three-node Raft key-value store comes up in namespaces of its own and serves
a steady load. Then, one after the other, the disk of a follower and the disk of
the leader get slow. Expect the first to change next to nothing, because two of
three disks are enough to commit; expect the second to slow every write down,
because no write commits without the leader's disk in this store.

`

const demoNext = `
Next       brownout list                         the other scenarios
           sudo brownout doctor                  what this host can inject, and how
           sudo brownout up                      a cluster to play with by hand
`
