package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"time"

	"talea/internal/app"
)

func main() {
	d := flag.Duration("for", 0, "")
	flag.Parse()
	err := app.Demo(context.Background(), app.DemoOptions{For: *d}, app.OSHost("x", os.Stderr), os.Stdout)
	fmt.Println(err, time.Now())
}
