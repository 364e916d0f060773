package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

type probeOptions struct {
	cluster, output string
	length, goodput time.Duration
	pace            int
}

func probeCommand() *cobra.Command {
	var opt probeOptions
	cmd := &cobra.Command{
		Use:   "probe PLACE PLACE",
		Short: "Measure the links between two nodes of a running cluster, there and back (root)",
		Long: `Measure the links between two places of a running cluster, there and back.
A place is n1, n2, ..., client, or cache where there is one. First UDP probes with the kernel's time stamps:
one-way delay, loss, duplicates, order. Then one TCP connection as fast as it
goes, one direction after the other: it fills the link while it lasts.`,
		Example: "  brownout probe n1 n2\n  brownout probe client n1 --goodput 0s -o json",
		Args:    usageArgs(cobra.ExactArgs(2)),
		RunE: func(cmd *cobra.Command, args []string) error {
			if opt.length < 0 || opt.goodput < 0 || opt.length > time.Hour || opt.goodput > time.Hour {
				return &usageError{errors.New("--for and --goodput are times from 0s to 1h")}
			}
			if opt.pace < 1 || opt.pace > 10_000 {
				return &usageError{fmt.Errorf("--pace %d: 1 to 10000 probes a second", opt.pace)}
			}
			return probePath(cmd.Context(), args[0], args[1], opt)
		},
	}
	f := cmd.Flags()
	clusterFlag(cmd, &opt.cluster)
	f.StringVarP(&opt.output, "output", "o", "text", "text or json")
	f.DurationVar(&opt.length, "for", 2*time.Second, "how long to send probes")
	f.DurationVar(&opt.goodput, "goodput", time.Second, "how long to send on TCP in each direction; 0s: not at all")
	f.IntVar(&opt.pace, "pace", 200, "probes a second in each direction")
	return cmd
}

type pcapOptions struct {
	cluster, file string
	length        time.Duration
}

func pcapCommand() *cobra.Command {
	var opt pcapOptions
	cmd := &cobra.Command{
		Use:   "pcap PLACE-PLACE -o FILE",
		Short: "Capture what passes between two nodes of a running cluster, at both ends (root)",
		Long: `Capture the frames between two places (n1, n2, ..., client) of a running
cluster, as they leave the one and come in at the other, into one pcapng file with
an interface for each end: delay and loss show in the difference. Ends with
Ctrl-C or --for. A frame longer than the MTU is one that the kernel had not
yet taken apart.`,
		Example: "  brownout pcap n1-n2 -o x.pcapng --for 5s",
		Args:    usageArgs(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, b, ok := strings.Cut(args[0], "-")
			if !ok || a == "" || b == "" {
				return &usageError{fmt.Errorf("%q is not two places, as in n1-n2", args[0])}
			}
			if opt.file == "" {
				return &usageError{errors.New("-o names the file to write, as in -o x.pcapng")}
			}
			if opt.length < 0 {
				return &usageError{fmt.Errorf("--for %v is negative", opt.length)}
			}
			return pcap(cmd.Context(), a, b, opt)
		},
	}
	clusterFlag(cmd, &opt.cluster)
	cmd.Flags().StringVarP(&opt.file, "output", "o", "", "file to write; - is standard output")
	cmd.Flags().DurationVar(&opt.length, "for", 0, "how long; until Ctrl-C if absent")
	return cmd
}
