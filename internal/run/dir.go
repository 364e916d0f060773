// Package run is the schema of a run's directory: the only thing that the live
// half and the judging half of brownout share. Types and names, no behaviour
// beyond reading and writing them.
package run

// Names of the files in a run's directory. All paths are relative to it.
const (
	ManifestFile  = "manifest.json"
	ScenarioFile  = "scenario.yaml"
	PlanFile      = "plan.json"
	HistoryFile   = "history.jsonl"
	SpoolFile     = "history.bin" // compact archive form of the history, written while the run goes on
	EventsFile    = "events.jsonl"
	TelemetryFile = "telemetry.jsonl"
	ResultFile    = "result.json"
	JUnitFile     = "junit.xml"
	SummaryFile   = "summary.md"
	ViolationsDir = "violations" // of each conflict its operations, a timeline and porcupine's picture
	NodesDir      = "nodes"
	CleanupFile   = "cleanup.json"
)
