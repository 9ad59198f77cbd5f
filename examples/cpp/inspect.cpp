// One image through a graph of `snl export`, by ONNX Runtime's C++ API: score and decision.
//
//   ./inspect parts.onnx part.ppm bottle
//
// The image is a binary PPM (P6, 8 bits a channel) of any size: `convert part.jpg part.ppm`. The
// product must be named; recognising it is left to snl, and so is a product that was calibrated with
// a mask or tiles, which the file tells no threshold of. The map alone decides here; snl compares the
// image as a whole, too (docs/decisions.md), so an empty carrier may pass.
// Prints {"score": ..., "threshold": ..., "decision": "..."}; ends with 0, or with 2 and one line.

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <fstream>
#include <iostream>
#include <limits>
#include <optional>
#include <stdexcept>
#include <string>
#include <vector>

#include <onnxruntime_cxx_api.h>

struct Image {
  int width, height;
  std::vector<uint8_t> pixels;  // height x width x 3, RGB
};

Image read_ppm(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::string magic;
  int numbers[3] = {};  // width, height, largest value
  file >> magic;
  for (int& number : numbers) {
    while ((file >> std::ws) && file.peek() == '#')  // comments
      file.ignore(std::numeric_limits<std::streamsize>::max(), '\n');
    file >> number;
  }
  file.get();
  const auto [width, height, largest] = numbers;
  if (!file || magic != "P6" || width < 1 || height < 1 || width > 65535 || height > 65535 ||
      largest != 255)
    throw std::runtime_error(path + ": no binary PPM of 8 bits a channel");
  Image image{width, height, std::vector<uint8_t>(3 * size_t(width) * height)};
  if (!file.read(reinterpret_cast<char*>(image.pixels.data()), image.pixels.size()))
    throw std::runtime_error(path + ": is cut off");
  return image;
}

// One direction of a bilinear resize that takes the mean where it shrinks, in whole numbers as Pillow
// does it, and so snl (which of the two directions is first is up to Pillow's version, and may change
// a pixel by 1 of 255): `lines` lines of `from` pixels to `to`; `step` bytes to the next pixel,
// `stride` to the next line.
std::vector<uint8_t> resize(const std::vector<uint8_t>& in, int from, int to, int lines,
                            size_t step_in, size_t stride_in, size_t step_out, size_t stride_out) {
  constexpr int bits = 22;
  std::vector<uint8_t> out(3 * size_t(to) * lines);
  const double scale = double(from) / to, support = std::max(scale, 1.0);
  for (int i = 0; i < to; ++i) {
    const double centre = (i + 0.5) * scale;
    const int first = std::max(0, int(centre - support + 0.5));
    const int last = std::min(from, int(centre + support + 0.5));
    std::vector<double> shares;
    double total = 0;
    for (int j = first; j < last; ++j) {
      shares.push_back(std::max(0.0, 1 - std::abs((j - centre + 0.5) / support)));
      total += shares.back();
    }
    std::vector<int> weights;
    for (double share : shares) weights.push_back(int(share / total * (1 << bits) + 0.5));
    for (int line = 0; line < lines; ++line)
      for (int channel = 0; channel < 3; ++channel) {
        int sum = 1 << (bits - 1);
        for (int j = first; j < last; ++j)
          sum += weights[j - first] * in[line * stride_in + j * step_in + channel];
        out[line * stride_out + i * step_out + channel] = uint8_t(std::min(sum >> bits, 255));
      }
  }
  return out;
}

std::vector<uint8_t> to_input(const Image& image, int size) {
  const size_t row = 3 * size_t(image.width), narrow = 3 * size_t(size);
  auto columns = resize(image.pixels, image.width, size, image.height, 3, row, 3, narrow);
  return resize(columns, image.height, size, size, narrow, 3, narrow, 3);
}

// A number of snl.thresholds, {"bottle": {"uncertain": 1.5, "anomalous": 2.0}, ...}; none where
// nothing can be promised (null).
std::optional<double> threshold(const std::string& json, const std::string& product,
                                const std::string& name) {
  const size_t begin = json.find("\"" + product + "\": {");
  if (begin == std::string::npos)
    throw std::runtime_error("no threshold of product '" + product + "' is told; told: " + json);
  const std::string key = "\"" + name + "\": ";
  const char* text = json.c_str() + json.find(key, begin) + key.size();
  char* end = nullptr;
  const double value = std::strtod(text, &end);
  return end == text ? std::nullopt : std::optional(value);
}

int run(const std::string& graph, const std::string& path, const std::string& product) {
  Ort::Env env(ORT_LOGGING_LEVEL_ERROR);
  Ort::Session session(env, std::basic_string<ORTCHAR_T>(graph.begin(), graph.end()).c_str(),
                       Ort::SessionOptions());
  Ort::AllocatorWithDefaultOptions allocator;
  const auto metadata = session.GetModelMetadata();
  const auto look_up = [&](const char* key) {
    const auto value = metadata.LookupCustomMetadataMapAllocated(key, allocator);
    if (!value) throw std::runtime_error(graph + ": was not made by snl export");
    return std::string(value.get());
  };
  const int size = std::stoi(look_up("snl.image_size"));
  const std::string thresholds = look_up("snl.thresholds");

  std::vector<uint8_t> pixels = to_input(read_ppm(path), size);
  const std::array<int64_t, 4> shape{1, size, size, 3};
  const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
  const auto input = Ort::Value::CreateTensor<uint8_t>(memory, pixels.data(), pixels.size(),
                                                       shape.data(), shape.size());
  const char* inputs[] = {"pixels"};
  const char* outputs[] = {"scores"};  // and "maps", float (1, size, size), if you want them
  const auto found = session.Run(Ort::RunOptions(), inputs, &input, 1, outputs, 1);
  const float score = found[0].GetTensorData<float>()[0];

  const auto anomalous = threshold(thresholds, product, "anomalous");
  const auto uncertain = threshold(thresholds, product, "uncertain");
  std::string decision = "uncertain";
  if (anomalous && score > *anomalous) decision = "anomalous";
  if (anomalous && uncertain && score <= *uncertain) decision = "normal";
  std::cout.precision(9);
  std::cout << "{\"score\": " << score << ", \"threshold\": ";
  anomalous ? std::cout << *anomalous : std::cout << "null";
  std::cout << ", \"decision\": \"" << decision << "\"}\n";
  return 0;
}

int main(int count, char** arguments) try {
  if (count != 4) throw std::runtime_error("usage: inspect FILE.onnx IMAGE.ppm PRODUCT");
  return run(arguments[1], arguments[2], arguments[3]);
} catch (const std::exception& error) {
  std::cerr << "inspect: error: " << error.what() << "\n";
  return 2;
}
