// Package scenarios turns a scenario file into a plan, and a plan into a run.
//
// Parsing and resolving are pure and work on any system; running (the files
// that end in _linux.go) needs root and a kernel. The two meet in [plan.Plan].
package scenarios
