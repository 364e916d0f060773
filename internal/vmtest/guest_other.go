//go:build !linux

package main

func guest() { panic("the guest is a Linux machine") }
