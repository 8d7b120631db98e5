package main

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// printer writes tables, and beside each row a bar.
type printer struct {
	w      io.Writer
	json   bool
	tables []table
}

type table struct {
	Title   string     `json:"title"`
	Columns []string   `json:"columns"`
	Rows    [][]string `json:"rows"`
	Bars    []float64  `json:"bars"`
}

func (p *printer) title(title string, columns ...string) {
	p.flush()
	p.tables = append(p.tables, table{Title: title, Columns: columns})
}

// row adds a row; bar is how long its bar is, beside those of the others.
func (p *printer) row(bar float64, cells ...string) {
	t := &p.tables[len(p.tables)-1]
	t.Rows, t.Bars = append(t.Rows, cells), append(t.Bars, bar)
}

const barWidth = 30

// flush prints the last table.
func (p *printer) flush() {
	if p.json || len(p.tables) == 0 {
		return
	}
	t := p.tables[len(p.tables)-1]
	fmt.Fprintf(p.w, "%s\n\n| %s | |\n|%s---|\n", t.Title, strings.Join(t.Columns, " | "), strings.Repeat("---|", len(t.Columns)))
	longest := slices.Max(append([]float64{math.SmallestNonzeroFloat64}, t.Bars...))
	for i, r := range t.Rows {
		fmt.Fprintf(p.w, "| %s | %s |\n", strings.Join(r, " | "), strings.Repeat("█", int(math.Ceil(t.Bars[i]/longest*barWidth))))
	}
	fmt.Fprintln(p.w)
}

// end prints what is left.
func (p *printer) end() error {
	if !p.json {
		p.flush()
		return nil
	}
	e := json.NewEncoder(p.w)
	e.SetIndent("", "  ")
	return e.Encode(p.tables)
}

func number(f float64) string {
	switch {
	case f >= 100:
		return fmt.Sprintf("%.0f", f)
	case f >= 10:
		return fmt.Sprintf("%.1f", f)
	}
	return fmt.Sprintf("%.2f", f)
}

func share(n, of int) string { return fmt.Sprintf("%d of %d", n, of) }

func percentile(list []float64, p int) float64 {
	if len(list) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(list))
	return sorted[(len(sorted)-1)*p/100]
}

func median(list []float64) float64 { return percentile(list, 50) }

func worst(list []float64) float64 { return percentile(list, 100) }

func mean(list []float64) float64 {
	sum := 0.0
	for _, f := range list {
		sum += f
	}
	return sum / float64(len(list))
}
