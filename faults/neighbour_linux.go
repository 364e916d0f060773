package faults

var neighbourRows = []row{}
