/**
 * The drawing of a training's curve: two panels side by side, loss and accuracy over the epochs, as
 * one SVG file that any browser shows. SVG is text, so no library is needed to write it.
 *
 *     ┌ loss ───────────┐ ┌ accuracy ───────┐    each panel: frame, five grid lines with numbers,
 *     │ \__ train, test │ │      ___ test   │    one polyline a series, a dot an epoch
 *     └─────────────────┘ └─────────────────┘
 */
#include "report.h"

#include <stdio.h>

enum { WIDTH = 900, HEIGHT = 380, PANEL_WIDTH = 350, PANEL_HEIGHT = 250, TOP = 70, GRID_LINES = 5 };

struct panel {
    const char *title;
    double left, low, high; /* x of the panel; the values at its bottom and top */
    uint32_t epochs;
};

static double panel_x(const struct panel *panel, uint32_t epoch)
{
    double share = panel->epochs > 1 ? (double)epoch / (panel->epochs - 1) : 0.5;
    return panel->left + share * PANEL_WIDTH;
}

static double panel_y(const struct panel *panel, double value)
{
    return TOP + PANEL_HEIGHT * (panel->high - value) / (panel->high - panel->low);
}

static void draw_frame(FILE *file, const struct panel *panel, const char *format)
{
    fprintf(file, "<text x='%.1f' y='%d' font-size='15'>%s</text>\n", panel->left, TOP - 14,
            panel->title);
    for (int i = 0; i < GRID_LINES; i++) {
        double value = panel->low + (panel->high - panel->low) * i / (GRID_LINES - 1);
        double y = panel_y(panel, value);
        fprintf(file, "<line x1='%.1f' y1='%.1f' x2='%.1f' y2='%.1f' stroke='#ddd'/>\n",
                panel->left, y, panel->left + PANEL_WIDTH, y);
        fprintf(file, "<text x='%.1f' y='%.1f' text-anchor='end' fill='#555'>", panel->left - 6,
                y + 4);
        fprintf(file, format, value);
        fprintf(file, "</text>\n");
    }
    uint32_t every = (panel->epochs + 9) / 10;
    for (uint32_t i = 0; i < panel->epochs; i += every)
        fprintf(file, "<text x='%.1f' y='%d' text-anchor='middle' fill='#555'>%u</text>\n",
                panel_x(panel, i), TOP + PANEL_HEIGHT + 18, i + 1);
    fprintf(file, "<text x='%.1f' y='%d' text-anchor='middle' fill='#555'>epoch</text>\n",
            panel->left + PANEL_WIDTH / 2.0, TOP + PANEL_HEIGHT + 36);
}

static double pick(const struct report_epoch *epoch, int series)
{
    return series == 0 ? epoch->train_loss : series == 1 ? epoch->test_loss : 100 * epoch->accuracy;
}

static void draw_series(FILE *file, const struct panel *panel, const struct report *report,
                        int series, const char *colour, const char *name, int place)
{
    fprintf(file, "<polyline fill='none' stroke='%s' stroke-width='2' points='", colour);
    for (uint32_t i = 0; i < report->epochs_count; i++)
        fprintf(file, "%.1f,%.1f ", panel_x(panel, i),
                panel_y(panel, pick(&report->epochs[i], series)));
    fprintf(file, "'/>\n");
    for (uint32_t i = 0; i < report->epochs_count; i++)
        fprintf(file, "<circle cx='%.1f' cy='%.1f' r='2.5' fill='%s'/>\n", panel_x(panel, i),
                panel_y(panel, pick(&report->epochs[i], series)), colour);
    fprintf(file, "<text x='%.1f' y='%d' text-anchor='end' fill='%s'>%s</text>\n",
            panel->left + PANEL_WIDTH - 60.0 * place, TOP - 14, colour, name);
}

/* Widens low … high so that every epoch of a series fits, with a little room. */
static void fit(struct panel *panel, const struct report *report, int first, int last)
{
    panel->low = panel->high = pick(&report->epochs[0], first);
    for (uint32_t i = 0; i < report->epochs_count; i++)
        for (int series = first; series <= last; series++) {
            double value = pick(&report->epochs[i], series);
            panel->low = value < panel->low ? value : panel->low;
            panel->high = value > panel->high ? value : panel->high;
        }
    double room = (panel->high - panel->low) * 0.06 + 0.01;
    panel->low -= room;
    panel->high += room;
}

int curve_write(const struct report *report, const char *path)
{
    struct panel loss = {.title = "loss", .left = 70, .epochs = report->epochs_count};
    struct panel accuracy = {.title = "accuracy, %", .left = 510, .epochs = report->epochs_count};
    FILE *file = fopen(path, "w");

    if (!file)
        return -1;
    fit(&loss, report, 0, 1);
    fit(&accuracy, report, 2, 2);
    fprintf(file,
            "<svg xmlns='http://www.w3.org/2000/svg' width='%d' height='%d' "
            "viewBox='0 0 %d %d' font-family='sans-serif' font-size='11'>\n"
            "<rect width='100%%' height='100%%' fill='white'/>\n"
            "<text x='70' y='28' font-size='17'>Fashion-MNIST: %.2f %% after %u epochs and %.1f "
            "s</text>\n",
            WIDTH, HEIGHT, WIDTH, HEIGHT, 100 * report->epochs[report->epochs_count - 1].accuracy,
            report->epochs_count, report->seconds);
    draw_frame(file, &loss, "%.2f");
    draw_frame(file, &accuracy, "%.1f");
    draw_series(file, &loss, report, 0, "#1f6fb4", "training", 1);
    draw_series(file, &loss, report, 1, "#d1495b", "test", 0);
    draw_series(file, &accuracy, report, 2, "#d1495b", "test", 0);
    fprintf(file, "</svg>\n");
    int failed = ferror(file);
    return fclose(file) || failed ? -1 : 0;
}
