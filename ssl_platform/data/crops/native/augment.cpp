// One augmented crop in one call: what ssl_platform/data/crops/draw.py has drawn is applied here, as far
// as it is known here: flips, colour jitter, grey, solarize, posterize and blur, in any order.
//
// The arithmetic is Pillow's, operation by operation, but for two: hue and blur are computed in float
// and rounded once. After the resize, pixels lie in planes (all red, all green, all blue), so that the
// compiler vectorises every loop.
//
// It is built without contraction to fused multiply-adds: the same pixels on every machine.

#define PY_SSIZE_T_CLEAN
#include <Python.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <new>
#include <utility>
#include <vector>

// One build serves every x86-64 processor: the loader picks the version that it can run.
// x86-64-v4 is AVX-512, a name that GCC 12 was the first to know here.
#if defined(__x86_64__) && defined(__linux__) && defined(__GLIBC__)
#if defined(__GNUC__) && __GNUC__ >= 12
#define FOR_EACH_PROCESSOR __attribute__((target_clones("arch=x86-64-v4", "avx2", "default")))
#else
#define FOR_EACH_PROCESSOR __attribute__((target_clones("avx2", "default")))
#endif
#else
#define FOR_EACH_PROCESSOR
#endif

namespace {

constexpr int CHANNELS = 3;

struct Box {
    int top, left, height, width;
};

// The filter of one direction: output i is the weighted sum of `count` inputs from `starts[i]` on,
// with the weights from `weights[i * count]` on.
struct Taps {
    static constexpr double ONE = 1 << 22;
    int count;
    std::vector<int> starts;
    std::vector<float> weights;

    // Pillow's BILINEAR: a triangle that widens when the image shrinks, cut off at the edges, in
    // fixed point of 22 bits (which a float holds).
    Taps(int in, int out, bool flip) : starts(out) {
        const double scale = static_cast<double>(in) / out, support = std::max(1.0, scale);
        count = std::min(in, static_cast<int>(std::ceil(2 * support)));
        weights.assign(static_cast<size_t>(out) * count, 0.0f);
        std::vector<double> triangle(count);
        for (int i = 0; i < out; i++) {
            const double center = (i + 0.5) * scale;
            const int start = std::max(0, static_cast<int>(center - support + 0.5));
            const int last = std::min(in, static_cast<int>(center + support + 0.5));
            const int end = std::min(last, start + count);
            double sum = 0;
            for (int k = start; k < end; k++) {
                triangle[k - start] = std::max(0.0, 1 - std::fabs((k - center + 0.5) / support));
                sum += triangle[k - start];
            }
            const int at = flip ? out - 1 - i : i;
            starts[at] = std::min(start, in - count);  // the same count everywhere: no branches
            float *const row = &weights[static_cast<size_t>(at) * count] + start - starts[at];
            for (int k = 0; k < end - start; k++)
                row[k] = static_cast<float>(static_cast<int>(triangle[k] / sum * ONE + 0.5) / ONE);
        }
    }
};

struct Planes {
    uint8_t *red, *green, *blue;
    size_t size;  // pixels of one plane
};

// Memory that a thread keeps from crop to crop: the pages of fresh memory take longer than the
// arithmetic. It begins at a cache line: a vector that lies across two is loaded twice.
template <typename T>
struct Scratch {
    static constexpr size_t LINE = 64;
    std::vector<T> memory;

    T *get(size_t size) {
        if (memory.size() < size + LINE / sizeof(T)) memory.resize(size + LINE / sizeof(T));
        const size_t beyond = reinterpret_cast<uintptr_t>(memory.data()) % LINE;
        return memory.data() + (LINE - beyond) / sizeof(T);
    }
};

inline uint8_t rounded(float value) { return static_cast<uint8_t>(static_cast<int>(value + 0.5f)); }

// Fractions are cut off, as Pillow's blend does.
inline uint8_t truncated(float value) {
    return static_cast<uint8_t>(static_cast<int>(std::min(std::max(value, 0.0f), 255.0f)));
}

// ITU-R BT.601 in Pillow's fixed point
inline int luma(int red, int green, int blue) {
    return (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16;
}

// Sums of this many values stay in registers; memory is padded to whole blocks. The rows of a blur
// are shorter, and more of a large block would be padding.
constexpr int RESIZE_BLOCK = 64, BLUR_BLOCK = 32;

inline size_t whole_blocks(size_t length, size_t block) {
    return (length + block - 1) / block * block;
}

FOR_EACH_PROCESSOR
void interleave(const uint8_t *red, const uint8_t *green, const uint8_t *blue, size_t size,
                uint8_t *out) {
    for (size_t i = 0; i < size; i++) {
        out[CHANNELS * i] = red[i];
        out[CHANNELS * i + 1] = green[i];
        out[CHANNELS * i + 2] = blue[i];
    }
}

FOR_EACH_PROCESSOR
void separate(const uint8_t *in, size_t size, uint8_t *red, uint8_t *green, uint8_t *blue) {
    for (size_t i = 0; i < size; i++) {
        red[i] = in[CHANNELS * i];
        green[i] = in[CHANNELS * i + 1];
        blue[i] = in[CHANNELS * i + 2];
    }
}

FOR_EACH_PROCESSOR
void to_floats(const uint8_t *in, size_t length, float *out) {
    for (size_t i = 0; i < length; i++) out[i] = in[i];
}

FOR_EACH_PROCESSOR
void to_bytes(const float *in, size_t length, uint8_t *out) {
    for (size_t i = 0; i < length; i++) out[i] = rounded(in[i]);
}

// --- resize ------------------------------------------------------------------------------------

constexpr int ROWS = 4;  // that are narrowed together, for they share starts and weights

// ROWS rows, `in_stride` and `out_stride` apart, with one value beyond the last. COUNT is
// `taps.count` where the compiler knows it and unrolls, else 0.
template <int COUNT>
inline __attribute__((always_inline)) void narrow_by(const float *in, size_t in_stride,
                                                     const Taps &taps, int size, float *out,
                                                     size_t out_stride) {
    typedef float Quad __attribute__((vector_size(16)));  // a pixel and one value beyond it
    const int count = COUNT ? COUNT : taps.count;
    const float *weights = taps.weights.data();
    const float *rows[ROWS];  // the addresses that stay in registers
    float *to[ROWS];
    for (int r = 0; r < ROWS; r++) {
        rows[r] = in + r * in_stride;
        to[r] = out + r * out_stride;
    }
    for (int x = 0; x < size; x++, weights += count) {
        const size_t first = static_cast<size_t>(taps.starts[x]) * CHANNELS;
        Quad sums[ROWS] = {};
        for (int k = 0; k < count; k++)
            for (int r = 0; r < ROWS; r++) {
                Quad pixel;
                std::memcpy(&pixel, rows[r] + first + k * CHANNELS, sizeof pixel);
                sums[r] += weights[k] * pixel;
            }
        for (int r = 0; r < ROWS; r++) std::memcpy(to[r] + x * CHANNELS, &sums[r], sizeof sums[r]);
    }
}

FOR_EACH_PROCESSOR
void narrow(const float *in, size_t in_stride, const Taps &taps, int size, float *out,
            size_t out_stride) {
    switch (taps.count) {
        case 2: return narrow_by<2>(in, in_stride, taps, size, out, out_stride);
        case 3: return narrow_by<3>(in, in_stride, taps, size, out, out_stride);
        case 4: return narrow_by<4>(in, in_stride, taps, size, out, out_stride);
        default: return narrow_by<0>(in, in_stride, taps, size, out, out_stride);
    }
}

// The weighted sum of `count` rows, `stride` apart, rounded.
FOR_EACH_PROCESSOR
void add_rows(const uint8_t *rows, size_t stride, const float *weights, int count, size_t length,
              uint8_t *out) {
    for (size_t start = 0; start < length; start += RESIZE_BLOCK) {
        float sums[RESIZE_BLOCK];
        for (int i = 0; i < RESIZE_BLOCK; i++) sums[i] = 0;
        for (int k = 0; k < count; k++) {
            const uint8_t *const row = rows + k * stride + start;
            for (int i = 0; i < RESIZE_BLOCK; i++) sums[i] += weights[k] * row[i];
        }
        for (int i = 0; i < RESIZE_BLOCK; i++) out[start + i] = rounded(sums[i]);
    }
}

// Horizontally, then vertically, rounded to bytes in between: what Pillow does too, except that new
// releases turn the order round where that is quicker.
void resize(const uint8_t *image, int image_width, const Box &box, bool mirrored, bool upside_down,
            int height, int width, const Planes &planes) {
    thread_local Scratch<float> floats;
    thread_local Scratch<uint8_t> bytes;
    const Taps horizontal(box.width, width, mirrored), vertical(box.height, height, upside_down);
    const size_t box_length = static_cast<size_t>(box.width) * CHANNELS;
    const size_t length = static_cast<size_t>(width) * CHANNELS;
    const size_t stride = whole_blocks(length + 1, RESIZE_BLOCK);
    float *const rows = floats.get(ROWS * (box_length + 1 + stride));
    float *const sums = rows + ROWS * (box_length + 1);
    uint8_t *const narrowed = bytes.get((box.height + ROWS) * stride);
    uint8_t *const out = narrowed + (box.height + ROWS - 1) * stride;
    for (int y = 0; y < box.height; y += ROWS) {
        for (int r = 0; r < ROWS; r++) {  // the last row again where the box ends
            const size_t line = static_cast<size_t>(box.top) + std::min(y + r, box.height - 1);
            float *const row = rows + r * (box_length + 1);
            to_floats(image + (line * image_width + box.left) * CHANNELS, box_length, row);
            row[box_length] = 0;
        }
        narrow(rows, box_length + 1, horizontal, width, sums, stride);
        to_bytes(sums, ROWS * stride, narrowed + y * stride);
    }
    for (int y = 0; y < height; y++) {
        add_rows(narrowed + vertical.starts[y] * stride, stride,
                 &vertical.weights[static_cast<size_t>(y) * vertical.count], vertical.count, length,
                 out);
        const size_t at = static_cast<size_t>(y) * width;
        separate(out, width, planes.red + at, planes.green + at, planes.blue + at);
    }
}

// --- colour ------------------------------------------------------------------------------------

// Pillow's blend of a constant and a plane: for all three enhancements of ImageEnhance.
inline uint8_t blend(int from, int to, float factor) {
    return truncated(from + factor * (to - from));
}

FOR_EACH_PROCESSOR
void blend_with_constant(uint8_t *plane, size_t size, int constant, float factor) {
    for (size_t i = 0; i < size; i++) plane[i] = blend(constant, plane[i], factor);
}

FOR_EACH_PROCESSOR
uint64_t sum_of_luma(const uint8_t *red, const uint8_t *green, const uint8_t *blue, size_t size) {
    uint64_t total = 0;
    for (size_t start = 0; start < size; start += 4096) {
        const size_t end = std::min(size, start + 4096);
        uint32_t sum = 0;
        for (size_t i = start; i < end; i++) sum += luma(red[i], green[i], blue[i]);
        total += sum;
    }
    return total;
}

FOR_EACH_PROCESSOR
void blend_with_luma(uint8_t *red, uint8_t *green, uint8_t *blue, size_t size, float factor) {
    for (size_t i = 0; i < size; i++) {
        const int gray = luma(red[i], green[i], blue[i]);
        red[i] = blend(gray, red[i], factor);
        green[i] = blend(gray, green[i], factor);
        blue[i] = blend(gray, blue[i], factor);
    }
}

FOR_EACH_PROCESSOR
void to_luma(uint8_t *red, uint8_t *green, uint8_t *blue, size_t size) {
    for (size_t i = 0; i < size; i++) {
        const uint8_t gray = static_cast<uint8_t>(luma(red[i], green[i], blue[i]));
        red[i] = green[i] = blue[i] = gray;
    }
}

inline float clamped(float value) { return std::min(std::max(value, 0.0f), 1.0f); }

// Through HSV and back, without a branch. Hue counts from 0 to 6, each sixth from one corner of
// the colour hexagon to the next.
FOR_EACH_PROCESSOR
void shift_hue(uint8_t *red, uint8_t *green, uint8_t *blue, size_t size, float shift) {
    for (size_t i = 0; i < size; i++) {
        const float r = red[i], g = green[i], b = blue[i];
        const float high = std::max(r, std::max(g, b)), low = std::min(r, std::min(g, b));
        const float chroma = high - low;
        const float inverse = 1 / std::max(chroma, 1.0f);  // grey has no hue and stays what it is
        const float from_red = (g - b) * inverse;
        const float from_green = 2 + (b - r) * inverse;
        const float from_blue = 4 + (r - g) * inverse;
        float hue = high == r ? from_red : high == g ? from_green : from_blue;
        hue += 6 * shift;
        hue = hue < 0 ? hue + 6 : hue;
        hue = hue >= 6 ? hue - 6 : hue;
        red[i] = rounded(low + chroma * clamped(std::fabs(hue - 3) - 1));
        green[i] = rounded(low + chroma * clamped(2 - std::fabs(hue - 2)));
        blue[i] = rounded(low + chroma * clamped(2 - std::fabs(hue - 4)));
    }
}

FOR_EACH_PROCESSOR
void invert_from(uint8_t *plane, size_t size, int threshold) {
    for (size_t i = 0; i < size; i++) plane[i] = plane[i] < threshold ? plane[i] : 255 - plane[i];
}

FOR_EACH_PROCESSOR
void keep_bits(uint8_t *plane, size_t size, uint8_t mask) {
    for (size_t i = 0; i < size; i++) plane[i] &= mask;
}

// --- blur --------------------------------------------------------------------------------------

// The edge's pixel is the mirror: -1 is 1, and `size` is `size - 2`.
inline int mirrored(int index, int size) {
    if (size == 1) return 0;
    const int period = 2 * (size - 1);
    index = ((index % period) + period) % period;
    return index < size ? index : period - index;
}

// `middle` and the pairs of rows on both sides of it, weighted: one direction of a blur.
FOR_EACH_PROCESSOR
void add_pairs(const float *middle, const float *const *before, const float *const *after,
               const float *half, int radius, size_t length, float *out) {
    for (size_t start = 0; start < length; start += BLUR_BLOCK) {
        float sums[BLUR_BLOCK];
        for (int i = 0; i < BLUR_BLOCK; i++) sums[i] = half[0] * middle[start + i];
        for (int k = 1; k <= radius; k++) {
            const float *const a = before[k] + start, *const b = after[k] + start;
            for (int i = 0; i < BLUR_BLOCK; i++) sums[i] += half[k] * (a[i] + b[i]);
        }
        for (int i = 0; i < BLUR_BLOCK; i++) out[start + i] = sums[i];
    }
}

// `half` is the middle of a symmetric kernel and the `radius` weights on one side of it.
void blur(uint8_t *plane, int height, int width, const float *half, int radius) {
    thread_local Scratch<float> floats;
    const size_t stride = whole_blocks(width, BLUR_BLOCK);
    const size_t padded_size = stride + 2 * radius;
    float *const rows = floats.get(stride * height + stride + padded_size);
    float *const sums = rows + stride * height, *const row = sums + stride + radius;
    std::vector<const float *> before(radius + 1), after(radius + 1);
    for (int k = 1; k <= radius; k++) {
        before[k] = row - k;
        after[k] = row + k;
    }
    std::vector<int> across(width + 2 * radius), down(height + 2 * radius);  // of -radius and after
    for (int i = 0; i < width + 2 * radius; i++) across[i] = mirrored(i - radius, width);
    for (int i = 0; i < height + 2 * radius; i++) down[i] = mirrored(i - radius, height);
    for (int y = 0; y < height; y++) {
        to_floats(plane + static_cast<size_t>(y) * width, width, row);
        for (int k = 1; k <= radius; k++) {
            row[-k] = row[across[radius - k]];
            row[width - 1 + k] = row[across[radius + width - 1 + k]];
        }
        add_pairs(row, before.data(), after.data(), half, radius, width, rows + y * stride);
    }
    for (int y = 0; y < height; y++) {
        for (int k = 1; k <= radius; k++) {
            before[k] = rows + down[radius + y - k] * stride;
            after[k] = rows + down[radius + y + k] * stride;
        }
        add_pairs(rows + y * stride, before.data(), after.data(), half, radius, width, sums);
        to_bytes(sums, width, plane + static_cast<size_t>(y) * width);
    }
}

// --- steps -------------------------------------------------------------------------------------

enum Operation { BRIGHTNESS, CONTRAST, SATURATION, HUE, GRAYSCALE, SOLARIZE, POSTERIZE, BLUR };

// Contiguous memory of a Python object, held until this goes.
struct Buffer {
    Py_buffer view{};

    Buffer() = default;
    Buffer(const Buffer &) = delete;
    Buffer(Buffer &&other) noexcept : view(other.view) { other.view.obj = nullptr; }

    bool open(PyObject *object, int ndim, Py_ssize_t itemsize, int flags, const char *expected) {
        if (PyObject_GetBuffer(object, &view, PyBUF_C_CONTIGUOUS | flags) != 0) return false;
        if (view.ndim == ndim && view.itemsize == itemsize) return true;
        PyErr_Format(PyExc_ValueError, "not %s", expected);
        return false;
    }
    ~Buffer() { PyBuffer_Release(&view); }
};

// An operation and its strength; of a blur, the weights of a symmetric kernel.
struct Step {
    Operation operation;
    float value;
    Buffer kernel;
};

void apply(const Step &step, const Planes &p, int height, int width) {
    uint8_t *const all[] = {p.red, p.green, p.blue};
    switch (step.operation) {
        case BRIGHTNESS:
            for (uint8_t *plane : all) blend_with_constant(plane, p.size, 0, step.value);
            break;
        case CONTRAST: {
            const double sum = static_cast<double>(sum_of_luma(p.red, p.green, p.blue, p.size));
            const int mean = static_cast<int>(sum / p.size + 0.5);
            for (uint8_t *plane : all) blend_with_constant(plane, p.size, mean, step.value);
            break;
        }
        case SATURATION:
            blend_with_luma(p.red, p.green, p.blue, p.size, step.value);
            break;
        case HUE:
            shift_hue(p.red, p.green, p.blue, p.size, step.value);
            break;
        case GRAYSCALE:
            to_luma(p.red, p.green, p.blue, p.size);
            break;
        case SOLARIZE: {
            const int threshold = static_cast<int>(std::ceil(step.value));
            for (uint8_t *plane : all) invert_from(plane, p.size, threshold);
            break;
        }
        case POSTERIZE: {
            const uint8_t mask = static_cast<uint8_t>(0xff00 >> static_cast<int>(step.value));
            for (uint8_t *plane : all) keep_bits(plane, p.size, mask);
            break;
        }
        case BLUR: {
            const int radius = static_cast<int>(step.kernel.view.shape[0] / 2);
            const float *const half = static_cast<const float *>(step.kernel.view.buf) + radius;
            for (uint8_t *plane : all) blur(plane, height, width, half, radius);
            break;
        }
    }
}

// --- Python ------------------------------------------------------------------------------------

void crop(const uint8_t *image, int image_width, const Box &box, bool mirrored, bool upside_down,
          const std::vector<Step> &steps, int height, int width, uint8_t *out) {
    thread_local Scratch<uint8_t> bytes;
    const size_t area = static_cast<size_t>(height) * width;
    uint8_t *const first = bytes.get(CHANNELS * area);
    const Planes planes{first, first + area, first + 2 * area, area};
    resize(image, image_width, box, mirrored, upside_down, height, width, planes);
    for (const Step &step : steps) apply(step, planes, height, width);
    interleave(planes.red, planes.green, planes.blue, area, out);
}

bool read_step(PyObject *pair, std::vector<Step> &steps) {
    int operation;
    PyObject *value;
    if (!PyTuple_Check(pair) || !PyArg_ParseTuple(pair, "iO", &operation, &value)) return false;
    if (operation < BRIGHTNESS || operation > BLUR) {
        PyErr_Format(PyExc_ValueError, "steps: no operation %d", operation);
        return false;
    }
    steps.push_back(Step{static_cast<Operation>(operation), 0, Buffer()});
    Step &step = steps.back();
    if (step.operation == BLUR) {
        if (!step.kernel.open(value, 1, sizeof(float), 0, "a float32 kernel")) return false;
        const Py_ssize_t taps = step.kernel.view.shape[0];
        if (taps % 2 == 1 && taps <= 1 << 15) return true;
        PyErr_SetString(PyExc_ValueError, "steps: a kernel has an odd number of weights");
        return false;
    }
    step.value = static_cast<float>(PyFloat_AsDouble(value));
    if (PyErr_Occurred()) return false;
    if (step.operation != POSTERIZE || (step.value >= 0 && step.value <= 8)) return true;
    PyErr_SetString(PyExc_ValueError, "steps: a pixel has 0 to 8 bits");
    return false;
}

bool read_steps(PyObject *pairs, std::vector<Step> &steps) {
    PyObject *const sequence = PySequence_Fast(pairs, "steps: not a sequence");
    if (!sequence) return false;
    bool good = true;
    for (Py_ssize_t i = 0; good && i < PySequence_Fast_GET_SIZE(sequence); i++)
        good = read_step(PySequence_Fast_GET_ITEM(sequence, i), steps);
    Py_DECREF(sequence);
    if (!good && !PyErr_Occurred())
        PyErr_SetString(PyExc_TypeError, "steps: not a sequence of (operation, value)");
    return good;
}

PyObject *py_crop(PyObject *, PyObject *args) {
    PyObject *image_object, *out_object, *steps_object;
    Box box;
    int mirrored, upside_down;
    if (!PyArg_ParseTuple(args, "OO(iiii)ppO:crop", &image_object, &out_object, &box.top, &box.left,
                          &box.height, &box.width, &mirrored, &upside_down, &steps_object))
        return nullptr;
    Buffer image, out;
    std::vector<Step> steps;
    if (!image.open(image_object, 3, 1, 0, "a (H, W, 3) uint8 image") ||
        !out.open(out_object, 3, 1, PyBUF_WRITABLE, "a (height, width, 3) uint8 crop") ||
        !read_steps(steps_object, steps))
        return nullptr;
    const Py_ssize_t *const from = image.view.shape, *const to = out.view.shape;
    const Py_ssize_t most = 1 << 30;
    if (from[2] != CHANNELS || to[2] != CHANNELS || to[0] < 1 || to[1] < 1 || from[0] > most ||
        from[1] > most || to[0] > 1 << 15 || to[1] > 1 << 15 || box.top < 0 || box.left < 0 ||
        box.height < 1 || box.width < 1 || box.height > from[0] - box.top ||
        box.width > from[1] - box.left) {
        PyErr_SetString(PyExc_ValueError, "the box or the crop has an impossible shape");
        return nullptr;
    }
    bool enough_memory = true;
    Py_BEGIN_ALLOW_THREADS
    try {
        crop(static_cast<const uint8_t *>(image.view.buf), static_cast<int>(from[1]), box, mirrored,
             upside_down, steps, static_cast<int>(to[0]), static_cast<int>(to[1]),
             static_cast<uint8_t *>(out.view.buf));
    } catch (const std::bad_alloc &) {
        enough_memory = false;
    }
    Py_END_ALLOW_THREADS
    if (!enough_memory) return PyErr_NoMemory();
    Py_RETURN_NONE;
}

PyMethodDef methods[] = {
    {"crop", py_crop, METH_VARARGS,
     "crop(image, out, (top, left, height, width), mirrored, upside_down, steps)\n\n"
     "Cut one crop out of image ((H, W, 3) uint8) and write it to out ((height, width, 3) uint8).\n"
     "steps is a sequence of (operation, value), operations numbered as brightness, contrast,\n"
     "saturation, hue, grayscale (of any value), solarize, posterize, and blur, whose value is the\n"
     "float32 weights of a symmetric kernel."},
    {nullptr, nullptr, 0, nullptr},
};

PyModuleDef module = {PyModuleDef_HEAD_INIT, "_augment", "Augmentation of crops, compiled.", -1,
                      methods, nullptr, nullptr, nullptr, nullptr};
}  // namespace

PyMODINIT_FUNC PyInit__augment() { return PyModule_Create(&module); }
