// The header of a safetensors file, read event by event so that a hostile one costs no more than its size.
#include <nlohmann/json.hpp>
#include <set>
#include <utility>

#include "runtime/checkpoint/safetensors.h"

namespace moesaic::detail {

namespace {

using Json = nlohmann::json;

/// Accepts exactly {"__metadata__": {text: text}, NAME: {"dtype", "shape", "data_offsets"}, ...}.
class HeaderReader : public Json::json_sax_t {
  public:
    HeaderReader(const std::string& path, SafetensorsHeader& header) : path_(path), header_(header) {}

    bool null() override { return unexpected("null"); }
    bool boolean(bool) override { return unexpected("true or false"); }
    bool number_float(double, const std::string& text) override { return unexpected("the number " + text); }
    bool binary(Json::binary_t&) override { return unexpected("binary data"); }
    bool number_integer(std::int64_t value) override {
        return unexpected(fmt::format("the number {}", value));
    }

    bool number_unsigned(std::uint64_t value) override {
        if (place_ == Place::offsets) {
            if (offsets_.size() == 2) fail(fmt::format("{} has more than two data_offsets", subject()));
            offsets_.push_back(value);
            return true;
        }
        if (place_ != Place::shape || value > static_cast<std::uint64_t>(INT64_MAX))
            return unexpected(fmt::format("the number {}", value));
        tensor().shape.push_back(static_cast<i64>(value));
        return true;
    }

    bool string(std::string& text) override {
        if (place_ == Place::metadata) {
            header_.metadata[metadata_key_] = text;
        } else if (place_ == Place::tensor && field_ == "dtype") {
            tensor().dtype_name = text;
        } else {
            return unexpected("a string");
        }
        return true;
    }

    bool start_object(std::size_t) override {
        if (place_ == Place::outside) {
            place_ = Place::top;
        } else if (place_ == Place::top) {
            place_ = in_metadata_ ? Place::metadata : Place::tensor;
            fields_.clear();
        } else {
            return unexpected("an object");
        }
        return true;
    }

    bool key(std::string& name) override {
        switch (place_) {
            case Place::top:
                if (!names_.insert(name).second) fail(fmt::format("{} occurs twice", shown_name(name)));
                in_metadata_ = name == "__metadata__";
                if (!in_metadata_) header_.tensors.push_back({name, {}, {}, 0, 0});
                break;
            case Place::metadata:
                if (!fields_.insert(name).second)
                    fail(fmt::format("__metadata__ holds {} twice", shown_name(name)));
                metadata_key_ = name;
                break;
            default:
                if (name != "dtype" && name != "shape" && name != "data_offsets")
                    fail(fmt::format("{} has an unknown field {}", subject(), shown_name(name)));
                if (!fields_.insert(name).second) fail(fmt::format("{} has {} twice", subject(), name));
                field_ = name;
        }
        return true;
    }

    bool end_object() override {
        if (place_ == Place::tensor && fields_.size() != 3)
            fail(fmt::format("{} lacks one of dtype, shape, data_offsets", subject()));
        place_ = place_ == Place::top ? Place::outside : Place::top;
        return true;
    }

    bool start_array(std::size_t) override {
        if (place_ == Place::tensor && field_ == "shape") {
            place_ = Place::shape;
        } else if (place_ == Place::tensor && field_ == "data_offsets") {
            place_ = Place::offsets;
            offsets_.clear();
        } else {
            return unexpected("an array");
        }
        return true;
    }

    bool end_array() override {
        if (place_ == Place::offsets) {
            if (offsets_.size() != 2) fail(fmt::format("{} has not two data_offsets", subject()));
            tensor().begin = offsets_[0];
            tensor().end = offsets_[1];
        }
        place_ = Place::tensor;
        return true;
    }

    bool parse_error(std::size_t position, const std::string&, const Json::exception&) override {
        fail(fmt::format("the header is not valid JSON (at byte {} of it)", position));
    }

  private:
    enum class Place { outside, top, metadata, tensor, shape, offsets };

    const std::string& path_;
    SafetensorsHeader& header_;
    Place place_ = Place::outside;
    bool in_metadata_ = false;
    std::string field_, metadata_key_;
    std::set<std::string> names_, fields_;
    std::vector<u64> offsets_;

    SafetensorsHeader::Tensor& tensor() { return header_.tensors.back(); }
    [[nodiscard]] std::string subject() { return "tensor " + shown_name(tensor().name); }

    [[noreturn]] void fail(const std::string& what) {
        throw Error(fmt::format("{}: damaged safetensors file: {}", path_, what));
    }
    bool unexpected(const std::string& found) {
        switch (place_) {
            case Place::outside:
                fail(fmt::format("the header should be an object, not {}", found));
            case Place::top:
                fail(in_metadata_ ? fmt::format("__metadata__ should be an object, not {}", found)
                                  : fmt::format("{} should be an object, not {}", subject(), found));
            case Place::metadata:
                fail(fmt::format("__metadata__ {} should be a string, not {}", shown_name(metadata_key_),
                                 found));
            case Place::tensor:
                fail(fmt::format("{}: {} cannot be {}", subject(), field_, found));
            default:
                fail(fmt::format("{}: {} cannot hold {}", subject(), field_, found));
        }
    }
};

}  // namespace

SafetensorsHeader parse_safetensors_header(const std::string& path, std::string_view json) {
    SafetensorsHeader header;
    HeaderReader reader(path, header);
    Json::sax_parse(json.begin(), json.end(), &reader);
    return header;
}

}  // namespace moesaic::detail
