//go:build !race

package kvserver

const underRace = false
