//go:build race

package faults_test

// A program built with the race detector has preemption points that others do
// not, so that its world does stop in time: gc.pause does not bite it.
const raced = true
