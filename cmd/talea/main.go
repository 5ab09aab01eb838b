// Command talea is a gateway that meters, prices, limits and charges the tokens of inference engines, and the tool that
// looks after it. Run `talea help`, or start reading at package app.
package main

import (
	"os"

	"talea/internal/app"
)

func main() { os.Exit(app.Main(os.Args[1:], os.Stdout, os.Stderr)) }
