// Package archtest holds the rules of the code's shape as tests: who may import
// whom, which package owns which dependency, and what no file may do. Each rule
// carries its reason, which is what a failing build prints. It has no code.
package archtest
