# Draws docs/plots/algorithms.svg from what `limeload-l4 simulate` printed; see `make plots`.
set terminal svg size 960,440 font "sans-serif,12" background "white" noenhanced
set output "docs/plots/algorithms.svg"
set datafile separator ","
set style fill solid 1 noborder
set grid ytics lc rgb "#dddddd"
set border 3
set tics nomirror
set xtics rotate by -35
set bmargin 6

set multiplot layout 1,2
set title "Open sessions: the fullest of 10 backends over the mean, by weight" font ",12"
set ylabel "times the mean (1 is even)"
set yrange [1:1.7]
set key top left reverse Left samplen 1
set style data histogram
set style histogram clustered gap 1
# without `first`, which fills one backend after the other
plot "< grep -vE '^(algorithm|first),' docs/plots/few.csv" using 2:xtic(1) title "some 9 open for each unit of weight" lc rgb "#9ecae1", \
     "< grep -vE '^(algorithm|first),' docs/plots/many.csv" using 2 title "some 90" lc rgb "#3182bd"

set title "Clients that change their backend when 1 of 10 is removed" font ",12"
set ylabel "% of all clients"
set yrange [0:12]
set style histogram rowstacked
set boxwidth 0.5 relative
plot "< grep -E '^(client_hash|ring_hash|maglev)' docs/plots/many.csv" using ($4*100):xtic(1) title "its own: had to move" lc rgb "#9ecae1", \
     "" using ($5*100) title "moved besides" lc rgb "#de2d26"
unset multiplot
