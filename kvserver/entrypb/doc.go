// Package entrypb is generated from entry.proto by protoc 3.21.12 with protoc-gen-go v1.36.12.
package entrypb

//go:generate protoc --go_out=. --go_opt=paths=source_relative entry.proto
//go:generate go tool gofumpt -w entry.pb.go
